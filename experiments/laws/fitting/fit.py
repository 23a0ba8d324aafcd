"""Fits a form to points: ranked starts, bootstrap and held-out compute as rows of one program
(solve.py).
"""

from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting import (
    bootstrap,
    lack_of_fit,
    noise_model,
    residual_noise,
    solve,
    start_points,
)
from experiments.laws.fitting.formula import Form
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective

# starts of the solver for every resample. The data's own fit takes four times as many, and the
# share of them that reached the optimum is reported
STARTS = 8
LIMIT = 200  # steps of one start
FIRST_DELTA = 1e-3  # of the fit that shows the residuals' own scale
WIDE = 50.0  # of log loss: noise behind one degree of freedom can be drawn past what floats hold
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
    noise: residual_noise.Uneven | None = None
    levels: tuple[float, ...] = ()  # of intervals beside those of 95%

    @property
    def parameters(self) -> dict[str, float]:
        """Parameters and derived quantities, natural units."""
        return {k: float(v[0]) for k, v in solve.values(self.form, self.theta).items()}

    @property
    def centred(self) -> bool:
        """Drawn noise is drawn around the fit: the bias of its draws can be read off, and is."""
        return self.method == "noise"

    def intervals(self, level: float = 0.95) -> dict[str, list[float] | None]:
        values = self.parameters
        if not len(self.draws):
            return dict.fromkeys(values)
        return {
            k: bootstrap.interval(v, level, values[k] if self.centred else None)
            for k, v in solve.values(self.form, self.draws).items()
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


def check(law: str, points: Points, form: Form | None = None) -> Form:
    """The form of `law`, or `form`, which is that with what is known of it. Raises FitError in
    words if these points cannot be fitted.
    """
    if law not in FORMS:
        import difflib

        near = difflib.get_close_matches(law, FORMS, 1)
        raise FitError(
            f"unknown law {law!r}{f': did you mean {near[0]!r}?' if near else ':'} laws are"
            f" {', '.join(FORMS)}"
        )
    form = form or FORMS[law]
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
        free = "free " * bool(form.fixed or form.tied)
        hint = "" if free else " (--fix and --tie leave fewer)"
        raise FitError(
            f"{law} has {len(form.names)} {free}parameters, {len(points.y)} runs cannot fit"
            f" it{hint}"
        )
    for name in form.inputs if not form.fixed else ():
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
    form: Form | None = None,
) -> Fitted:
    """Fits `law`, or `form` of it; deterministic by `seed`. `method`: `cases` resamples runs,
    `noise` draws normal noise around the fit (for designs with one run per cell), `t` is
    lack_of_fit.py. `hold_out`: (points,) bool, left out of one more fit that is then tested on
    them. `starts` replaces the ranked grid. Raises FitError.
    """
    form = check(law, points, form)
    x, y = {k: np.asarray(points.x[k], float) for k in form.inputs}, np.asarray(points.y, float)
    given = points.weights is not None
    first = objective._replace(delta=FIRST_DELTA, own=False) if objective.own else objective
    if starts is None:
        try:
            starts = start_points.ranked(form, x, y, points.w, first, 4 * STARTS)
        except ValueError as e:
            raise FitError(f"{law}: {e}") from None
    starts = np.resize(starts, (-(-len(starts) // STARTS) * STARTS, len(form.names)))
    groups = starts.reshape(-1, STARTS, len(form.names))

    def solved(spec, w, groups):
        rows = np.array([w] * len(groups) + ([] if hold_out is None else [w * ~hold_out]))
        if len(rows) > len(groups):
            groups = np.concatenate([groups, groups[:1]])
        return solve.run(form, x, y, rows, groups, spec, LIMIT, base=w)

    theta, value, ok = solved(first, points.w, groups)
    n, noise = len(groups), None
    if objective.own:
        (theta, value, ok), points, objective, noise = _settled(
            form, x, y, points, objective, solved, theta, value, ok, n
        )
    best, objective_value, share = _best(theta[:n], value[:n])
    residuals = _residuals(form, best, x, y, objective)
    rng, draws = np.random.default_rng(seed), np.zeros((0, len(best)))
    if resamples and method == "cases":
        rows = points.w * bootstrap.case_counts(points.clusters, len(y), resamples, rng)
        first = theta[0] if objective.own else groups[0]
        found = solve.run(form, x, y, rows, first, objective, LIMIT, base=points.w)
        draws = _draws(*found[:2])
    elif resamples and method == "t":
        draws = lack_of_fit.draws(form, best, x, y, points.w, residuals, objective.space, rng)
    elif resamples:
        draws = _drawn(form, best, x, y, points, given, residuals, objective, resamples, rng)
    tested = None
    if hold_out is not None:
        tested = _tested(form, _best(theta[n : n + 1], value[n : n + 1])[0], x, y, hold_out)
    near = ok[:n] & (value[:n] <= objective_value * (1 + 1e-6) + 1e-24)
    return Fitted(
        law,
        form,
        points,
        objective,
        best,
        objective_value,
        residuals,
        bool(near.any()),
        share,
        draws,
        tested,
        method,
        noise,
    )


def _settled(form, x, y, points, objective, solved, theta, value, ok, n):
    """A scale from the first residuals, then weights and a scale from the next: what `solved` found
    last, the points with their weights, the objective with its delta, the noise.
    """
    noise = None
    for weigh in (False, True):
        best = _best(theta[:n], value[:n])[0]
        if weigh:
            points, noise = _weighed(form, best, x, y, points, objective.space)
            if noise is not None and not noise.shown:
                break  # the scale stands
        r = _residuals(form, best, x, y, objective) * np.sqrt(points.w)
        delta = residual_noise.TUNING * residual_noise.scale(r, len(best))
        objective = objective._replace(delta=max(delta, 1e-12))
        theta, value, ok = solved(objective, points.w, theta[:n])
    return (theta, value, ok), points, objective, noise


def _weighed(form, theta, x, y, points, space):
    """Points with weights from the residuals' own noise, where they show that it is uneven and no
    weights are given; and that noise.
    """
    if points.weights is not None:
        return points, None
    u, _ = _standard(form, theta, x, y, points.w, space)
    noise = residual_noise.uneven(u, covariates(form, theta, x, y), len(y) - len(theta))
    if not noise.shown:
        return points, noise
    w = noise.relative() ** -2.0
    return points._replace(weights=w / w.mean()), noise


def _standard(form, theta, x, y, w, space):
    """(residuals of unit weight, each over the share that the fit leaves of it; (1 - leverage)^.5)
    both (points,).
    """
    fitted = solve.predict(form, theta, x)[0]
    r = np.log(fitted) - np.log(y) if space == "log" else fitted - y
    left = np.sqrt(1 - residual_noise.leverage(solve.jacobian(form, theta, x, y, space), w))
    return r * np.sqrt(w) / left, left


def covariates(form, theta, x, y):
    """What the noise may grow with: the loss, and the size or else the first input."""
    size = "N" if "N" in x else form.inputs[0]
    loss = solve.predict(form, theta, x)[0]
    return {k: v for k, v in {size: x[size], form.outcome: loss}.items() if np.all(v > 0)}


def _best(theta, value):
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


def _drawn(form, theta, x, y, points, given, residuals, objective, resamples, rng):
    """Resamples of the fit plus noise that is drawn from its residuals: their own sizes and
    outliers, uneven as they show it (or as the weights say), at least as large as the seeds' noise.
    """
    w = points.w
    noise, relative = None, 1 / np.sqrt(np.maximum(w, 1e-12))
    if not given:
        u, _ = _standard(form, theta, x, y, w, objective.space)
        noise = residual_noise.uneven(
            u * relative, covariates(form, theta, x, y), len(y) - len(theta)
        )
    floor = points.noise.sigma if points.noise else 0.0
    if objective.penalty != 1:  # they lie on one side: drawn as they are
        wide = np.sqrt(len(y) / max(1, len(y) - len(theta)))
        e = -wide * rng.choice(residuals / relative, (resamples, len(y))) * relative
    else:
        source = residual_noise.source(residuals, len(theta), noise, relative, floor)
        e = source.draw(rng, resamples)
    centre = solve.predict(form, theta, x)[0]
    if objective.space == "log":
        drawn = centre * np.exp(np.clip(e, -WIDE, WIDE))
    else:
        drawn = np.maximum(centre + e, 1e-12)
    ranked = start_points.ranked(form, x, y, w, objective, STARTS // 2 - 1)
    starts = np.concatenate([theta[None], ranked])
    rows = np.broadcast_to(w, drawn.shape)
    thetas, value, _ = solve.run(form, x, drawn, rows, starts, objective, LIMIT, base=w)
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
