"""Where a search begins: a grid of start values, the linear parts solved, the best first."""

import itertools

import numpy as np

from experiments.laws.fitting import solve
from experiments.laws.fitting.formula import Form


def grid(form: Form, x: dict, y, w=None, limit: int = 3000) -> np.ndarray:
    """Start points: the product of the start values, with the linear parts of each projected out by
    weighted least squares (variable projection; relative residuals). (starts, parameters).
    """
    free = [i for i, n in enumerate(form.names) if n not in form.linear]
    lists = [
        np.asarray(form.parameters[i].to_theta(np.array(form.parameters[i].starts)), float)
        for i in free
    ]
    corner = np.array(list(itertools.product(*lists)))[:limit] if lists else np.zeros((1, 0))
    thetas = np.zeros((len(corner), len(form.names)))
    thetas[:, free] = corner
    return (
        _project(form, thetas, x, np.asarray(y, float), np.ones(len(y)) if w is None else w)
        if form.linear
        else thetas
    )


def _project(form, thetas, x, y, w):
    """Linear parts by least squares. A positive part that comes out negative is set to a small
    share, the others solved again.
    """
    linear = [form.names.index(n) for n in form.linear]
    kinds = [form.parameters[i].kind for i in linear]
    outcome = (lambda v: np.log(v)) if form.linear_in == "log" else (lambda v: v)

    def at(values):
        t = thetas.copy()
        for i, kind, v in zip(linear, kinds, values):
            t[:, i] = np.log(v) if kind == "positive" else v
        with np.errstate(invalid="ignore", divide="ignore"):
            return outcome(solve.predict(form, t, x))

    # the parts' columns: the outcome is affine in them, so differences from a base point are exact
    base = [1e-8 if k == "positive" else 0.0 for k in kinds]
    zero = at(base)
    columns = np.stack(
        [at([*base[:j], base[j] + 1.0, *base[j + 1 :]]) - zero for j in range(len(linear))], -1
    )
    target = outcome(y) - zero  # less what is fixed
    scale = np.sqrt(w) / (np.abs(y) if form.linear_in == "loss" else 1.0)
    phi, z = columns * scale[:, None], np.broadcast_to(target * scale, columns.shape[:-1])
    size = np.sqrt((phi**2).sum(1)) + 1e-300
    fitted = _lstsq(phi / size[:, None], z)
    positive = np.array([k == "positive" for k in kinds])
    small = 0.01 * np.sqrt((z**2).sum(1))[:, None]  # one percent of the whole
    wrong = positive & (fitted < small)
    rest = z - (np.where(wrong, small, 0.0)[:, None] * (phi / size[:, None])).sum(-1)
    again = _lstsq(np.where(wrong[:, None], 0.0, phi / size[:, None]), rest)
    fitted = np.where(wrong, small, np.where(positive, np.maximum(again, small), again)) / size
    out = thetas.copy()
    low, high = form.bounds
    for j, (i, kind) in enumerate(zip(linear, kinds)):
        out[:, i] = np.log(fitted[:, j]) if kind == "positive" else fitted[:, j]
    return np.clip(out, low, high)


def _lstsq(a, b):
    """Batched least squares with a small ridge against parts that look alike."""
    gram = np.einsum("kni,knj->kij", a, a) + 1e-10 * np.eye(a.shape[-1])
    return np.linalg.solve(gram, np.einsum("kni,kn->ki", a, b)[..., None])[..., 0]


def ranked(form: Form, x: dict, y, w, objective: solve.Objective, count: int) -> np.ndarray:
    """The `count` start points of the grid with the least objective on the data. (count,
    parameters).
    """
    starts = grid(form, x, y, w)
    with np.errstate(all="ignore"):
        fitted = solve.predict(form, starts, x)
        r = np.log(fitted) - np.log(y) if objective.space == "log" else fitted - y
        score = objective.value(r, w)
    score = np.where(np.isfinite(score), score, np.inf)
    if not np.isfinite(score).any():
        raise ValueError("no start of the grid gives a finite loss")
    return starts[np.argsort(score, kind="stable")[:count]]
