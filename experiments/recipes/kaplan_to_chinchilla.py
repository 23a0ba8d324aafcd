"""Why do two groups' exponents of N_opt differ? A long warm-up against a short one, each at three
learning rates; read with and without the FLOPs of the head, at the best rate and at one for all.

After Porian et al. 2024 (arXiv 2406.19146), who go from the exponent of Kaplan et al. 2020 to that
of Hoffmann et al. 2022 in such steps. `long` warms up over the same tokens whatever the run's
length: nearly all of the shortest run, one percent of the longest. `short` takes a tenth.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart

LONG = 50_000  # tokens; the shortest run has 50,944


def recipe() -> SweepJob:
    sweep = Sweep(
        name="kaplan_to_chinchilla",
        sizes=(8, 12, 20, 32),
        budgets=(1.5e10, 3.5e10, 8e10, 1.9e11),
        arms=(("short", "dense"), ("long", f"dense; schedule.warmup_tokens={LONG}")),
        lr_multipliers=(0.5, 1.0, 2.0),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
