"""Recipes: each file's `recipe()` returns a Job (one run) or a SweepJob. A new question is one file and one line here."""

import importlib
import importlib.util
import os

from experiments.plan import SweepJob
from launch.config import ConfigError, Job
from model.config import choose

RECIPES = {
    "tiny_dense": "experiments.recipes.tiny_dense",
    "tiny_moe": "experiments.recipes.tiny_moe",
    "quickstart": "experiments.recipes.quickstart",
    "learning_rate": "experiments.recipes.learning_rate",
    "known_entropy": "experiments.recipes.known_entropy",
    "known_truth": "experiments.recipes.known_truth",
}


def load(name: str) -> Job | SweepJob:
    """The recipe NAME, or that of a file NAME.py. Raises ConfigError. A recipe is Python and runs with your rights."""
    if name.endswith(".py"):
        if not os.path.isfile(name):
            raise ConfigError(f"--config={name} is not a file")
        spec = importlib.util.spec_from_file_location("isoflop_recipe", name)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as e:
            raise ConfigError(f"--config={name} cannot be loaded ({type(e).__name__}: {e})") from None
    else:
        try:
            module = importlib.import_module(choose(RECIPES, name, "recipe"))
        except ValueError as e:
            raise ConfigError(f"{e}; or give a FILE.py with a recipe()") from None
    if not hasattr(module, "recipe"):
        raise ConfigError(f"--config={name} defines no recipe(): it must return a Job or a SweepJob")
    value = module.recipe()
    if not isinstance(value, (Job, SweepJob)):
        raise ConfigError(f"recipe() of {name} returned {type(value).__name__}: it must return a Job or a SweepJob")
    return value


def summary(name: str) -> str:
    """First line of a recipe's docstring."""
    return (importlib.import_module(RECIPES[name]).__doc__ or "").strip().splitlines()[0]
