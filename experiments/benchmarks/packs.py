"""Packs against one run at a time: the quickstart recipe with eight seeds, compilation included.

One at a time a single seed is trained; eight of them would take its compilation once and the rest
eight times, which is what is compared.
"""

import dataclasses
import os
import tempfile
import time

import jax

from experiments import recipes
from experiments.planning import grid
from launch import config, engines
from launch.devices import members
from launch.runs import checks, pack, train
from launch.runs import program as programs

SEEDS = tuple(range(8))


def _runs(toy: bool, seeds: tuple[int, ...]) -> list[engines.Task]:
    job = recipes.load("quickstart")
    small = {"sizes": (8,), "budgets": (1e9,)} if toy else {}
    none = {"replicate_size": 0, "replicate_budget": 0.0, "replicate_seeds": ()}
    sweep = dataclasses.replace(job.sweep, seeds=seeds, **none, **small)
    run = checks.resolve(job.run, jax.default_backend())
    plan = grid.make(dataclasses.replace(job, sweep=sweep, run=run), jax.default_backend())
    return [engines.Task(p.run, p.id, p.tags, p.shape, p.flops) for p in plan.runs]


def _packed(tasks: list[engines.Task], where: config.Where, root: str) -> None:
    for alike in dict.fromkeys(t.alike for t in tasks):
        mine = [t for t in tasks if t.alike == alike]
        most = members.number(mine[0].run, where, jax.default_backend(), members.here())
        here = dataclasses.replace(where, members=min(most, len(mine)) if most > 1 else len(mine))
        orders = iter([pack.Order(t.run, os.path.join(root, t.id), {}) for t in mine])
        pack.train(here, lambda orders=orders: next(orders, None), _raised)


def _raised(told: pack.Told) -> None:
    if told.error:
        raise told.error


def part(toy: bool, say) -> dict:
    """Rows of seconds, and how many times faster packs are in all."""
    where = config.Where(keep_final=False, tensorboard=False)
    with tempfile.TemporaryDirectory() as root:
        programs.forget()
        started, setup = time.perf_counter(), 0.0
        for t in _runs(toy, SEEDS[:1]):
            r = train.train(t.run, where, os.path.join(root, "alone", t.id))
            setup += r["seconds"]["setup"]
        once = time.perf_counter() - started
        alone = setup + len(SEEDS) * (once - setup)
        say({"packs": "one at a time", "one_seed_s": once, "of_it_setup_s": setup, "all_s": alone})
        programs.forget()
        tasks, started = _runs(toy, SEEDS), time.perf_counter()
        _packed(tasks, where, os.path.join(root, "packs"))
        together = time.perf_counter() - started
        say({"packs": "together", "runs": len(tasks), "all_s": together})
    return {"packs_times_faster": alone / together}
