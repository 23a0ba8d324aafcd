"""Recipes: each file's `recipe()` returns a Job (one run) or a SweepJob. A new question is one file
and one line here.

NAME:SCALE is the same sweep at another scale (experiments/recipes/scales.py): tiny, as it is
written, h200 or pod.
"""

import importlib
import importlib.util
import os

from experiments.planning.grid import SweepJob
from experiments.recipes import scales
from launch.config import ConfigError, Job
from model.config import choose

RECIPES = {
    "tiny_dense": "experiments.recipes.tiny_dense",
    "tiny_moe": "experiments.recipes.tiny_moe",
    "quickstart": "experiments.recipes.quickstart",
    "isoflop": "experiments.recipes.isoflop",
    "dense_vs_moe": "experiments.recipes.dense_vs_moe",
    "predict": "experiments.recipes.predict",
    "kaplan_to_chinchilla": "experiments.recipes.kaplan_to_chinchilla",
    "architectures": "experiments.recipes.architectures",
    "context": "experiments.recipes.context",
    "positions": "experiments.recipes.positions",
    "granularity": "experiments.recipes.granularity",
    "repeats": "experiments.recipes.repeats",
    "mixtures": "experiments.recipes.mixtures",
    "vocabulary": "experiments.recipes.vocabulary",
    "learning_rate": "experiments.recipes.learning_rate",
    "transfer": "experiments.recipes.transfer",
    "batch": "experiments.recipes.batch",
    "trunks": "experiments.recipes.trunks",
    "optimizers": "experiments.recipes.optimizers",
    "known_entropy": "experiments.recipes.known_entropy",
    "known_truth": "experiments.recipes.known_truth",
}


def load(name: str) -> Job | SweepJob:
    """The recipe NAME, or that of a file NAME.py, each also as NAME:SCALE. Raises ConfigError. A
    recipe is Python and runs with your rights.
    """
    name, colon, scale = name.rpartition(":") if ":" in os.path.basename(name) else (name, "", "")
    job = _load(name)
    return scales.at(job, scale, name) if colon else job


def _load(name: str) -> Job | SweepJob:
    if name.endswith(".py"):
        if not os.path.isfile(name):
            raise ConfigError(f"--config={name} is not a file")
        spec = importlib.util.spec_from_file_location("isoflop_recipe", name)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as e:
            raise ConfigError(
                f"--config={name} cannot be loaded ({type(e).__name__}: {e})"
            ) from None
    else:
        try:
            module = importlib.import_module(choose(RECIPES, name, "recipe"))
        except ValueError as e:
            raise ConfigError(f"{e}; or give a FILE.py with a recipe()") from None
    if not hasattr(module, "recipe"):
        raise ConfigError(
            f"--config={name} defines no recipe(): it must return a Job or a SweepJob"
        )
    value = module.recipe()
    if not isinstance(value, (Job, SweepJob)):
        raise ConfigError(
            f"recipe() of {name} returned {type(value).__name__}: it must return a Job or a"
            " SweepJob"
        )
    return value


def summary(name: str) -> str:
    """First line of a recipe's docstring."""
    return (importlib.import_module(RECIPES[name]).__doc__ or "").strip().splitlines()[0]
