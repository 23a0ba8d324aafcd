"""What a law form is: a formula with its source, inputs, parameters and start values. The forms
themselves stand in law_forms.py.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Parameter(NamedTuple):
    """`kind`: positive (fitted as its logarithm), above_one (as log(value - 1)) or real. `starts`:
    grid values, natural units; empty for linear parts, which are projected out of the grid. `low`,
    `high`: the box of the fit, natural units.
    """

    name: str
    starts: tuple[float, ...]
    kind: str
    low: float
    high: float
    unit: str = ""

    def to_theta(self, value):
        return (
            np.log(value)
            if self.kind == "positive"
            else np.log(np.asarray(value) - 1)
            if self.kind == "above_one"
            else np.asarray(value)
        )

    def to_value(self, theta):
        return (
            jnp.exp(theta)
            if self.kind == "positive"
            else 1 + jnp.exp(theta)
            if self.kind == "above_one"
            else theta
        )


class Form(NamedTuple):
    """`predict(p, x)`: the outcome in its natural unit, from parameters `p` and inputs `x` as
    attributes; traceable by JAX. `linear`: parameters in which `predict` (or its logarithm, if
    `linear_in` is "log") is linear, the others held. `derived(p)`: further quantities that get
    intervals. `columns`: where an input is read, if not in its usual column.
    """

    formula: str
    source: str
    inputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    predict: Callable
    linear: tuple[str, ...] = ()
    linear_in: str = "loss"
    derived: Callable = lambda p: {}
    outcome: str = "loss"
    columns: tuple[tuple[str, str], ...] = ()
    optimum: bool = False  # it has N and D (or E too): a compute-optimal split exists
    # what a reader gave (constraints.py): these are no parameters of the fit
    fixed: tuple[tuple[str, float], ...] = ()
    tied: tuple[tuple[str, str], ...] = ()  # (name, the parameter whose value it has)
    within: tuple[tuple[str, tuple[float, float]], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters)

    def __call__(self, theta, x: dict):
        """Outcome at inputs `x` (arrays of one shape) for `theta` (len(parameters),)."""
        return self.predict(self.values(theta), SimpleNamespace(**x))

    def values(self, theta) -> SimpleNamespace:
        named = {p.name: p.to_value(t) for p, t in zip(self.parameters, theta)}
        named |= {k: jnp.asarray(v) for k, v in self.fixed}
        return SimpleNamespace(**named, **{k: named[of] for k, of in self.tied})

    def theta(self, **values) -> np.ndarray:
        """The unconstrained vector of natural values."""
        return np.array([float(p.to_theta(values[p.name])) for p in self.parameters])

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(
            np.array([float(p.to_theta(getattr(p, end))) for p in self.parameters])
            for end in ("low", "high")
        )
