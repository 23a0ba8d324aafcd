"""Muennighoff et al. 2023: what repeated tokens and excess parameters are worth, in two stages.

The first stage is Chinchilla's law with alpha = beta. The second holds its five parameters and fits
R_D* and R_N* alone. The notebook fits the first to 54 points of a figure of Hoffmann et al., which
its repository does not hold: those five are taken as printed. It also fits the first stage to the
authors' own runs of at most 2.5 epochs, and these are at hand.
"""

import numpy as np

from experiments.laws.fitting import constraints, fit
from experiments.laws.fitting.fit import Points
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective
from experiments.laws.published import constants
from experiments.laws.published.reproductions.rows import Row, near
from experiments.laws.runs import table as tables

# what the notebook prints, A, B and E as logarithms: for 54 points, and for the own runs
HELD = {"A": 6.255414, "B": 7.3049974, "E": 0.6254804, "alpha": 0.3526596}
OWN_RUNS = {"A": 6.4526014, "B": 8.022968, "E": 0.63987476, "alpha": 0.3595363}
OBJECTIVE = 0.015825936570763588  # of the second stage, in float32
SPEC = Objective("huber", 1e-3)
# of the authors' search: linspace(0, 20, 4) without its first, which is 0 / 0
STARTS = (20 / 3, 40 / 3, 20.0)


def natural(logs: dict) -> dict:
    """Parameters of which A, B and E are given as logarithms; beta is alpha."""
    v = {k: float(np.exp(x)) if k in "ABE" else x for k, x in logs.items()}
    return v | {"beta": v["alpha"]}


class Second:
    """Sum-Huber of the second stage over R_D* and R_N*, and its gradient, as the notebook has
    it.
    """

    def __init__(self, held: dict, t):
        self.held, n, d, u = held, t["n_params"], t["tokens"], t["unique_tokens"]
        both = held["alpha"] + held["beta"]
        g = (held["alpha"] * held["A"] / (held["beta"] * held["B"])) ** (1 / both)
        self.u, self.un = u, np.minimum(n, g * (g * u) ** (held["beta"] / held["alpha"]))
        self.rd, self.rn = d / u - 1, n / self.un - 1
        self.log_loss = np.log(t["loss"])

    def residuals(self, rd: np.ndarray, rn: np.ndarray) -> tuple[np.ndarray, list]:
        """Of log loss, (..., runs), for R_D* and R_N* of any shape (...); and the slope of each."""
        total, slopes = self.held["E"], []
        for scale, power, first, r, star in (
            (self.held["B"], self.held["beta"], self.u, self.rd, rd),
            (self.held["A"], self.held["alpha"], self.un, self.rn, rn),
        ):
            ratio = r / np.asarray(star)[..., None]
            gone = np.exp(-ratio)
            worth = first * (1 + np.asarray(star)[..., None] * (1 - gone))
            part = scale * worth**-power
            total = total + part
            slopes.append(-power * part / worth * first * (1 - gone - ratio * gone))
        return np.log(total) - self.log_loss, [s / total for s in slopes]

    def value(self, rd, rn) -> np.ndarray:
        return SPEC.value(self.residuals(rd, rn)[0])

    def search(self) -> tuple[float, np.ndarray]:
        """(objective, (R_D*, R_N*)) of the authors' search: L-BFGS from each of STARTS x STARTS, to
        its end and in float64.
        """
        from scipy.optimize import minimize

        def f(star):
            r, slopes = self.residuals(*star)
            pull = np.clip(r, -SPEC.delta, SPEC.delta)
            return float(SPEC.value(r)), np.array([(pull * s).sum() for s in slopes])

        options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000, "maxfun": 20000}
        found = [
            minimize(
                f, (d, n), jac=True, method="L-BFGS-B", bounds=[(1e-3, None)] * 2, options=options
            )
            for d in STARTS
            for n in STARTS
        ]
        best = min(found, key=lambda r: r.fun)
        return float(best.fun), best.x


def _first_stage(t, mark: str) -> list[Row]:
    form = constraints.applied(
        FORMS["chinchilla3"], "chinchilla3", constraints.read(tie="beta=alpha")
    )
    x, y, printed = {"N": t["n_params"], "D": t["tokens"]}, t["loss"], natural(OWN_RUNS)
    f = fit.fit("chinchilla3", Points(x, y), SPEC, form=form)
    what = "first stage on own runs of at most 2.5 epochs"
    rows = [
        Row(f"{what}: runs", 62, mark, len(y), agrees=len(y) == 62),
        near(f"{what}: sum-Huber", 0.0012, mark, f.value, 5e-5),
    ]
    for k, tolerance in (("A", 0.005), ("B", 0.005), ("E", 0.0005), ("alpha", 0.0005)):
        rows.append(near(f"  {k}", printed[k], mark, f.parameters[k], tolerance * printed[k]))
    return rows


def reproduce(table, resamples: int, seed: int) -> tuple[list[Row], dict]:
    """Muennighoff et al. 2023, eq 5-6: the notebook's objective at its own optimum, its search, and
    the lowest optimum of the same objective, which is another.
    """
    p = constants.PUBLISHED["muennighoff2023"]
    stages = [tables.where(table, f"stage=={k}") for k in (1, 2)]
    rows, t, held = _first_stage(stages[0], p.mark), stages[1], natural(HELD)
    second, y = Second(held, t), t["loss"]
    stops, (rd, rn) = second.search()
    form = constraints.applied(
        FORMS["muennighoff2023"], p.law, constraints.Limits(fix=tuple(held.items()))
    )
    x = {"N": t["n_params"], "D": t["tokens"], "U": t["unique_tokens"]}
    f = fit.fit(p.law, Points(x, y), SPEC, resamples, seed, form=form)
    spans = f.intervals()
    at_printed = float(second.value(p.values["RD"], p.values["RN"]))
    what = "second stage"
    rows += [
        Row(f"{what}: E, A, B, alpha = beta held as printed; alpha", held["alpha"], p.mark, None),
        Row(f"{what}: runs", 182, p.mark, len(y), agrees=len(y) == 182),
        near(f"{what}: sum-Huber at the printed R_D*, R_N*", OBJECTIVE, p.mark, at_printed, 5e-9),
        near(f"{what}: sum-Huber where the authors' search ends", OBJECTIVE, p.mark, stops, 1e-8),
        near("  R_D*", p.values["RD"], p.mark, float(rd), 0.03),
        near("  R_N*", p.values["RN"], p.mark, float(rn), 0.01),
        Row("lowest optimum of the same objective: sum-Huber", None, "", f.value),
        Row("  R_D*, at most 1e6", None, "", f.parameters["RD"], spans["RD"]),
        Row("  R_N*", None, "", f.parameters["RN"], spans["RN"]),
    ]
    return rows, {"fit": f, "second": second, "printed": p, "stops": (rd, rn)}
