"""Scaling laws: functions of records. Shared conventions: natural logarithms, float64, loss in nats
per token.

In a notebook: `from experiments.laws import load, fit, compare, predict` (notebook.py). They are
looked up when they are asked for, so that a file of this room loads no other.
"""

import importlib

_DOORS = {
    "load": "experiments.laws.runs.table",
    "table": "experiments.laws.notebook",
    "fit": "experiments.laws.notebook",
    "compare": "experiments.laws.notebook",
    "predict": "experiments.laws.notebook",
}
__all__ = ["compare", "fit", "load", "predict", "table"]


def __getattr__(name: str):
    if name not in _DOORS:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(_DOORS[name]), name)
