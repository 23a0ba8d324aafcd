"""The optimiser: ranked starts x resamples in one jitted program, float64 inside it and nowhere
else.

A damped Gauss-Newton method on SUM-Huber(delta). The curvature is that of the points inside delta;
the damping is the reweighted least-squares matrix of all points, a majoriser, so that a rejected
step turns into a short step of iteratively reweighted least squares. Squared loss is delta =
infinity; least absolute deviations the limit of a small delta, approached in stages. Rows
(resamples) are mapped one after another, so that a row's starts stay in the cache and stop when the
last of them has converged.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.laws.fitting.formula import Form
from experiments.laws.fitting.residual_noise import TUNING

LAD_STAGES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# the shape of a compiled program: rows, starts of a row, points
ROWS, TOGETHER, POINTS = 32, 4, 32


class Objective(NamedTuple):
    """`kind`: huber | squared | lad. `space`: residuals of log loss ("log") or of the loss itself
    ("loss"). The value is always the SUM over points of weight x (Huber(r) | r^2 | |r|). `own`:
    delta is chosen from the scale of the residuals, and is that of a point of weight one.
    """

    kind: str = "huber"
    delta: float = 1e-3
    space: str = "log"
    own: bool = False
    # an overestimate (the fit lies above the point) counts so many times as much: points are then
    # what bad tuning adds to a curve below them, not noise around it
    penalty: float = 1.0

    def __str__(self):
        name = f"huber:{self.delta:.3g}" if self.kind == "huber" else self.kind
        why = f" ({TUNING} times the residuals' own scale)" if self.own else ""
        over = f", overestimates x{self.penalty:g}" if self.penalty != 1 else ""
        return f"sum of {name}{why} on {'log loss' if self.space == 'log' else 'loss'}{over}"

    @property
    def deltas(self) -> tuple[float, ...]:
        return {"huber": (self.delta,), "squared": (np.inf,), "lad": LAD_STAGES}[self.kind]

    def at(self, w):
        """Delta of points of weight `w`: the same for all, or as many of their own sigmas."""
        return self.delta / np.sqrt(np.maximum(w, 1e-12)) if self.own else self.delta

    def value(self, r, w=1.0):
        """Of residuals `r` along the last axis."""
        a, delta = np.abs(r), self.at(w)
        if self.kind == "huber":
            each = np.where(a <= delta, 0.5 * a * a, delta * (a - 0.5 * delta))
        else:
            each = a * a if self.kind == "squared" else a
        return (w * each * np.where(r > 0, self.penalty, 1.0)).sum(-1)


DEFAULT = Objective()


def float64(f):
    """`f` under 64-bit JAX types, whatever the process uses, on the CPU if there is one."""

    @functools.wraps(f)
    def inside(*a, **k):
        with jax.enable_x64(True), jax.default_device(_cpu()):
            return f(*a, **k)

    return inside


@functools.lru_cache(maxsize=1)
def _cpu():
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:  # a process that was given an accelerator alone
        return jax.devices()[0]


def _residual(form: Form, space: str, x, y):
    if space == "loss":
        return lambda theta: form(theta, x) - y
    return lambda theta: jnp.log(form(theta, x)) - jnp.log(y)


def _evaluate(f, theta, w, delta, penalty):
    """Objective, gradient, curvature of the points inside delta, and the majorising matrix of
    all.
    """
    r, push = jax.linearize(f, theta)
    w = w * jnp.where(r > 0, penalty, 1.0)
    jac = jax.vmap(push)(jnp.eye(len(theta)))
    a = jnp.abs(r)
    inside = a <= delta
    weight = jnp.where(inside, 1.0, delta / jnp.where(inside, 1.0, a))
    objective = (
        w * jnp.where(inside, 0.5 * r * r, delta * (a - 0.5 * jnp.where(inside, 0.0, delta)))
    ).sum()
    return (
        objective,
        jac @ (w * weight * r),
        (jac * (w * inside)) @ jac.T,
        (jac * (w * weight)) @ jac.T,
    )


def _descend(f, theta, w, delta, penalty, low, high, limit, tolerance):
    """One start to its optimum. Returns (theta, objective, converged)."""
    eye = jnp.eye(len(theta))

    def step(state):
        theta, (value, g, inner, outer), damping, growth, count, _ = state
        diagonal = jnp.diagonal(outer) + 1e-300
        scale = 1 / jnp.sqrt(diagonal)
        held = ((theta <= low) & (g > 0)) | ((theta >= high) & (g < 0))
        h = (inner + damping * (outer + jnp.diag(diagonal))) * scale[:, None] * scale[None, :]
        h = jnp.where(held[:, None] | held[None, :], eye, h) + 1e-15 * eye
        slope = jnp.where(held, 0.0, g * scale)
        move = -jnp.linalg.solve(h, slope)
        fresh = jnp.clip(theta + move * scale, low, high)
        promised = -0.5 * slope @ move
        there = _evaluate(f, fresh, w, delta, penalty)
        better = there[0] < value
        gain = (value - there[0]) / jnp.maximum(promised, 1e-300)
        relax = jnp.where(gain > 0.75, 1 / 9, jnp.where(gain > 0.25, 1 / 3, 1.5))
        new_damping = jnp.where(better, damping * relax, damping * growth)
        small = better & (value - there[0] <= tolerance * value) & (gain > 0.25) & (damping < 1e-2)
        converged = small | (promised <= tolerance * value) | (value < 1e-300)
        code = jnp.where(converged, 1, jnp.where(new_damping > 1e10, 2, 0))
        chosen = jax.tree.map(lambda a, b: jnp.where(better, a, b), there, (value, g, inner, outer))
        return (
            jnp.where(better, fresh, theta),
            chosen,
            jnp.maximum(new_damping, 1e-14),
            jnp.where(better, 3.0, growth * 2),
            count + 1,
            code,
        )

    start = (
        theta,
        _evaluate(f, theta, w, delta, penalty),
        jnp.asarray(1e-2),
        jnp.asarray(3.0),
        0,
        jnp.asarray(0),
    )
    theta, (value, *_), _, _, _, code = lax.while_loop(
        lambda s: (s[5] == 0) & (s[4] < limit), step, start
    )
    return theta, value, code > 0


@functools.partial(jax.jit, static_argnums=(0, 1))
def _program(form, space, x, y, w, starts, deltas, penalty, limits, tolerance):
    """y, w: (ROWS, points); starts: (ROWS, TOGETHER, parameters). Returns theta, objective,
    converged per row and start.
    """
    low, high = (jnp.asarray(b) for b in form.bounds)

    def row(args):
        y, w, starts = args
        f = _residual(form, space, x, y)

        def stage(theta, setting):
            delta, limit = setting
            theta, value, ok = jax.vmap(
                lambda t: _descend(f, t, w, delta, penalty, low, high, limit, tolerance)
            )(theta)
            return theta, (value, ok)

        theta, (value, ok) = lax.scan(stage, starts, (deltas, limits))
        return theta, value[-1], ok[-1]

    return lax.map(row, (y, w, starts))


def _filled(v, axis: int, to: int):
    """`v` with its last entry repeated along `axis` to a multiple of `to`."""
    last = np.take(v, [-1], axis)
    return np.concatenate([v, np.repeat(last, -v.shape[axis] % to, axis)], axis)


def _wide(v):
    """Points filled up: numbers of points share a compiled program."""
    return _filled(v, -1, POINTS)


@float64
def run(
    form: Form,
    x: dict,
    y,
    w,
    starts,
    objective: Objective,
    limit: int = 400,
    tolerance: float = 1e-14,
    base=1.0,
):
    """Minimises the objective from every start of every row. base: the points' own weights, which
    set their delta where the objective's is the residuals' own.

    x: inputs by name, (points,); y: outcomes, (points,) or (rows, points); w: weights, (rows,
    points); starts: (starts, parameters) or (rows, starts, parameters). Returns numpy theta (rows,
    starts, parameters), objective (rows, starts), converged. One program of a fixed shape serves a
    search and its resamples, for they differ in rows and starts alone, and to trace it takes longer
    than to run it.
    """
    w = np.atleast_2d(np.asarray(w, float))
    rows, points = w.shape
    y = _wide(np.broadcast_to(np.asarray(y, float), (rows, points)))
    x = {k: _wide(np.asarray(v, float)) for k, v in x.items()}
    w = np.concatenate([w, np.zeros((rows, y.shape[-1] - points))], -1)
    starts = np.broadcast_to(starts, (rows, *np.shape(starts)[-2:])).astype(float)
    deltas = np.array(objective.deltas)[:, None] * np.ones(w.shape[-1])
    if objective.own:
        deltas = _wide(np.broadcast_to(objective.at(base), (1, points)))
    limits = np.array([60] * (len(deltas) - 1) + [limit])
    groups = _filled(starts, 1, TOGETHER)
    each = groups.shape[1] // TOGETHER
    groups = groups.reshape(rows * each, TOGETHER, -1)
    found = []
    for i in range(0, len(groups), ROWS):
        own = np.arange(i, min(i + ROWS, len(groups))) // each
        rest = np.zeros((ROWS - len(own), w.shape[-1]))  # rows without weight end at once
        found.append(
            _program(
                *(form, objective.space, x, _filled(y[own], 0, ROWS)),
                *(np.concatenate([w[own], rest]), _filled(groups[i : i + ROWS], 0, ROWS)),
                *(deltas, np.asarray(objective.penalty), limits, tolerance),
            )
        )
    theta, value, ok = (
        np.concatenate(v)[: len(groups)].reshape(rows, each * TOGETHER, *v[0].shape[2:])[
            :, : starts.shape[1]
        ]
        for v in zip(*jax.device_get(found))
    )
    if objective.kind == "squared":
        value = 2 * value  # the sum of squares, not half of it
    if objective.kind == "lad":
        value = value / deltas[-1, 0]
    return theta, value, ok


@float64
def predict(form: Form, thetas, x: dict) -> np.ndarray:
    """Outcomes (draws, points) of `thetas` (draws, parameters) at inputs (points,)."""
    thetas = np.atleast_2d(np.asarray(thetas, float))
    x = {k: np.asarray(v, float) for k, v in x.items()}
    points = len(next(iter(x.values())))
    return np.asarray(_predict(form, thetas, {k: _wide(v) for k, v in x.items()}))[:, :points]


@functools.partial(jax.jit, static_argnums=0)
def _predict(form, thetas, x):
    return jax.vmap(lambda t: form(t, x))(thetas)


@float64
def values(form: Form, thetas) -> dict[str, np.ndarray]:
    """Natural values of the parameters and of what is derived from them, by name, each (draws,)."""
    thetas = np.atleast_2d(np.asarray(thetas, float))
    return {k: np.asarray(v) for part in _values(form, thetas) for k, v in part.items()}


@functools.partial(jax.jit, static_argnums=0)
def _values(form, thetas):
    return jax.vmap(lambda t: (vars(form.values(t)), form.derived(form.values(t))))(thetas)


@float64
def jacobian(form: Form, theta, x: dict, y, space: str) -> np.ndarray:
    """d residual / d theta, (points, parameters)."""
    x, y = {k: np.asarray(v, float) for k, v in x.items()}, np.asarray(y, float)
    return np.asarray(_jacobian(form, space, np.asarray(theta, float), x, y))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jacobian(form, space, theta, x, y):
    return jax.jacfwd(_residual(form, space, x, y))(theta)
