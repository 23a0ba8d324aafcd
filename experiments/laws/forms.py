"""Law forms, one entry each: parameters, prediction, and the start grid of the fit."""

from typing import NamedTuple
from collections.abc import Callable

import numpy as np


class Form(NamedTuple):
    """`predict(theta, N, D)` with theta in the unconstrained space of `to_named`; `grid` lists the start values per parameter."""

    formula: str
    source: str
    names: tuple[str, ...]
    log_predict: Callable
    gradient: Callable
    to_named: Callable
    grid: tuple


def _terms(theta, n, d):
    e, a, b, alpha, beta = theta
    return np.stack([np.full(n.shape, e), a - alpha * np.log(n), b - beta * np.log(d)])


def _chinchilla(theta, n, d):
    z = _terms(theta, n, d)
    top = z.max(0)
    return top + np.log(np.exp(z - top).sum(0))


def _chinchilla_gradient(theta, n, d):
    """d log L / d theta, shape (5, points): softmax weights of the three terms."""
    z = _terms(theta, n, d)
    w = np.exp(z - z.max(0))
    w /= w.sum(0)
    return np.stack([w[0], w[1], w[2], -w[1] * np.log(n), -w[2] * np.log(d)])


def _chinchilla_named(theta):
    e, a, b, alpha, beta = theta
    with np.errstate(over="ignore"):  # a parameter that the points do not identify may run off: inf says so
        return _named(e, a, b, alpha, beta)


def _named(e, a, b, alpha, beta):
    return {"E": float(np.exp(e)), "A": float(np.exp(a)), "B": float(np.exp(b)), "alpha": float(alpha), "beta": float(beta)}


FORMS = {
    "chinchilla3": Form(
        "L = E + A / N^alpha + B / D^beta",
        "Hoffmann et al. 2022, arXiv 2203.15556, eq 2 and 10",
        ("E", "A", "B", "alpha", "beta"),
        _chinchilla,
        _chinchilla_gradient,
        _chinchilla_named,
        # log E, log A, log B, alpha, beta: the paper's grid (appendix D.2), finer where small models lie
        ((-1.0, -0.5, 0.0, 0.5, 1.0), (0.0, 2.5, 5.0, 10.0, 15.0), (0.0, 2.5, 5.0, 10.0, 15.0), (0.1, 0.3, 0.6, 1.0), (0.1, 0.3, 0.6, 1.0)),
    ),
}
