"""Fits a form to points: ranked starts, bootstrap and held-out compute as rows of one program
(solve.py).
"""

from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting import bootstrap, noise_model, solve
from experiments.laws.fitting.formula import Form
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective

# starts of the solver for every resample. The data's own fit takes four times as many, and the
# share of them that reached the optimum is reported
STARTS = 8
LIMIT = 200  # steps of one start
SAME = 1e-4  # relative distance from the best objective within which a start has reached it


class Points(NamedTuple):
    """What a fit reads. x: inputs by name, each (points,); y: outcomes; weights relative to one
    another; clusters: which points are of one run and are resampled together; noise: the standard
    deviation between seeds in units of the residuals, or None.
    """

    x: dict
    y: np.ndarray
    weights: np.ndarray | None = None
    clusters: np.ndarray | None = None
    noise: noise_model.Noise | None = None

    @property
    def w(self) -> np.ndarray:
        return np.ones(len(self.y)) if self.weights is None else np.asarray(self.weights, float)


class Fitted(NamedTuple):
    """theta: (parameters,), unconstrained; draws: (resamples, parameters), NaN where a resample has
    no converged optimum.
    """

    law: str
    form: Form
    points: Points
    objective: Objective
    theta: np.ndarray
    value: float
    residuals: np.ndarray
    converged: bool
    at_optimum: float
    draws: np.ndarray
    held_out: dict | None
    method: str

    @property
    def parameters(self) -> dict[str, float]:
        """Parameters and derived quantities, natural units."""
        return {k: float(v[0]) for k, v in solve.values(self.form, self.theta).items()}

    def intervals(self, level: float = 0.95) -> dict[str, list[float] | None]:
        if not len(self.draws):
            return dict.fromkeys(self.parameters)
        return {
            k: bootstrap.interval(v, level) for k, v in solve.values(self.form, self.draws).items()
        }

    def predict(self, x: dict) -> tuple[np.ndarray, np.ndarray]:
        """Outcomes at inputs `x` (points,): of the fit, (points,), and of every draw, (resamples,
        points).
        """
        return solve.predict(self.form, self.theta, x)[0], (
            solve.predict(self.form, self.draws, x) if len(self.draws) else np.zeros((0, 1))
        )

    @property
    def residual_sd(self) -> float:
        """Root mean square of the weighted residuals over the degrees of freedom."""
        left = max(1, len(self.residuals) - len(self.theta))
        return float(np.sqrt((self.points.w * self.residuals**2).sum() / left))


def check(law: str, points: Points) -> Form:
    """The form of `law`. Raises FitError in words if these points cannot be fitted."""
    if law not in FORMS:
        import difflib

        near = difflib.get_close_matches(law, FORMS, 1)
        raise FitError(
            f"unknown law {law!r}{f': did you mean {near[0]!r}?' if near else ':'} laws are"
            f" {', '.join(FORMS)}"
        )
    form = FORMS[law]
    for name, values in {**points.x, form.outcome: points.y}.items():
        bad = ~np.isfinite(values) | (
            np.asarray(values) <= 0 if name not in ("S", "G") else np.asarray(values) < 0
        )
        if name == "S":
            bad |= np.asarray(values) >= 1
        if bad.any():
            i = int(np.argmax(bad))
            raise FitError(
                f"{name} of point {i + 1} is {values[i]:g}: {law} wants positive, finite values;"
                " leave such points out with --where"
            )
    if len(points.y) <= len(form.names):
        raise FitError(
            f"{law} has {len(form.names)} parameters, {len(points.y)} runs cannot fit it"
        )
    for name in form.inputs:
        if np.ptp(np.log(np.asarray(points.x[name]) + 1e-9)) < 1e-9:
            raise FitError(
                f"{name} is the same ({points.x[name][0]:g}) in every run: {law} cannot tell its"
                f" part apart; take a law without {name}"
            )
    return form


def fit(
    law: str,
    points: Points,
    objective: Objective = solve.DEFAULT,
    resamples: int = 0,
    seed: int = 0,
    method: str = "cases",
    hold_out: np.ndarray | None = None,
    starts: np.ndarray | None = None,
) -> Fitted:
    """Fits `law`; deterministic by `seed`. `method`: `cases` resamples runs, `noise` draws normal
    noise around the fit (for designs with one run per cell). `hold_out`: (points,) bool, left out
    of one more fit that is then tested on them. `starts` replaces the ranked grid. Raises
    FitError.
    """
    form = check(law, points)
    x, y, w = (
        {k: np.asarray(points.x[k], float) for k in form.inputs},
        np.asarray(points.y, float),
        points.w,
    )
    if starts is None:
        try:
            starts = solve.ranked(form, x, y, w, objective, 4 * STARTS)
        except ValueError as e:
            raise FitError(f"{law}: {e}") from None
    starts = np.resize(starts, (-(-len(starts) // STARTS) * STARTS, len(form.names)))
    groups = starts.reshape(-1, STARTS, len(form.names))
    rng = np.random.default_rng(seed)
    rows = [w] * len(groups)
    if hold_out is not None:
        rows.append(w * ~hold_out)
    if method == "cases":
        rows += [
            w * counts for counts in bootstrap.case_counts(points.clusters, len(y), resamples, rng)
        ]
    rows = np.array(rows)
    first = np.concatenate([groups, np.repeat(groups[:1], len(rows) - len(groups), 0)])
    theta, value, ok = solve.run(form, x, y, rows, first, objective, LIMIT)
    n = len(groups)
    best, objective_value, share = _best(theta[:n], value[:n], ok[:n])
    residuals = _residuals(form, best, x, y, objective)
    draws = _draws(theta[n + (hold_out is not None) :], value[n + (hold_out is not None) :])
    if method == "noise" and resamples:
        draws = _drawn(form, best, x, y, w, residuals, points.noise, objective, resamples, rng)
    tested = (
        _tested(form, _best(theta[n : n + 1], value[n : n + 1], ok[n : n + 1])[0], x, y, hold_out)
        if hold_out is not None
        else None
    )
    converged = bool(ok[:n].reshape(-1)[np.nanargmin(value[:n].reshape(-1))])
    return Fitted(
        law,
        form,
        points,
        objective,
        best,
        objective_value,
        residuals,
        converged,
        share,
        draws,
        tested,
        method,
    )


def _best(theta, value, ok):
    flat, thetas = value.reshape(-1), theta.reshape(-1, theta.shape[-1])
    if not np.isfinite(flat).any():
        raise FitError("no start of the grid led to a finite objective")
    i = int(np.nanargmin(flat))
    floor = 1e-24 * max(
        1, len(flat)
    )  # a fit of noise-free points is exact, and every start that is has reached it
    return thetas[i], float(flat[i]), float(np.mean(flat <= flat[i] * (1 + SAME) + floor))


def _draws(theta, value):
    """The best start of each row."""
    if not len(theta):
        return np.zeros((0, theta.shape[-1]))
    pick = np.argmin(np.where(np.isfinite(value), value, np.inf), 1)
    out = theta[np.arange(len(theta)), pick].copy()
    out[~np.isfinite(value).any(1)] = np.nan
    return out


def _residuals(form, theta, x, y, objective):
    fitted = solve.predict(form, theta, x)[0]
    return np.log(fitted) - np.log(y) if objective.space == "log" else fitted - y


def _drawn(form, theta, x, y, w, residuals, noise, objective, resamples, rng):
    """Parametric resamples: noise of the residuals' size (or the seeds', if that is larger), its
    own sigma every time.
    """
    left = max(1, len(y) - len(form.names))
    sd = float(np.sqrt((w * residuals**2).sum() / left))
    level = noise_model.Noise(max(sd, noise.sigma if noise else 0.0), left)
    centre = solve.predict(form, theta, x)[0]
    e = np.stack(
        [
            level.draw(rng) * rng.standard_normal(len(y)) / np.sqrt(np.maximum(w, 1e-12))
            for _ in range(resamples)
        ]
    )
    drawn = centre * np.exp(e) if objective.space == "log" else np.maximum(centre + e, 1e-12)
    starts = np.resize(theta, (STARTS // 2, len(theta)))
    starts = np.concatenate([starts[:1], solve.ranked(form, x, y, w, objective, STARTS // 2 - 1)])
    thetas, value, _ = solve.run(
        form, x, drawn, np.broadcast_to(w, drawn.shape), starts, objective, LIMIT
    )
    return _draws(thetas, value)


def _tested(form, theta, x, y, hold_out):
    """Relative errors of the fit without the held-out points, on them."""
    fitted = solve.predict(form, theta, {k: v[hold_out] for k, v in x.items()})[0]
    error = fitted / y[hold_out] - 1
    return {
        "n_fit": int((~hold_out).sum()),
        "n_test": int(hold_out.sum()),
        "mean_relative_error": float(np.abs(error).mean()),
        "worst_relative_error": float(np.abs(error).max()),
        "bias": float(error.mean()),
        "predicted": fitted.tolist(),
        "measured": y[hold_out].tolist(),
        "points": np.flatnonzero(hold_out).tolist(),
    }
