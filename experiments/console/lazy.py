"""Modules that are imported when they are first used: `--help`, a wrong flag and `isoflop status`
need neither jax nor the solver of the laws.
"""

import importlib


class Lazy:
    """Stands for the module of that name, and imports it at the first look at one of its parts."""

    def __init__(self, name: str):
        object.__setattr__(self, "_name", name)

    def __getattr__(self, part: str):
        return getattr(importlib.import_module(self._name), part)

    def __setattr__(self, part: str, value) -> None:
        setattr(importlib.import_module(self._name), part, value)
