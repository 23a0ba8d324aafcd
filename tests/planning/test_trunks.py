"""What trunks save: the plan's shares against arithmetic by hand, and what cannot share one."""

import json
from dataclasses import replace

import pytest

from experiments import cli
from experiments.planning import grid, step_time, trunks
from experiments.recipes import quickstart
from launch import config
from launch.config import ConfigError
from model import account
from model.optim import Schedule

PER = 2 * 128  # tokens of a step
LENGTHS = tuple(PER * n for n in (100, 200, 400, 800, 1600))
WSD = Schedule("wsd", warmup_steps=10)


def job(schedule=WSD, **sweep):
    made = quickstart.recipe()
    about = {"budgets": (), "tokens": LENGTHS, "trunks": True, "sizes": (16, 24)}
    about |= {"replicate_size": 0, "replicate_budget": 0.0, "replicate_seeds": (), **sweep}
    run = replace(made.run, schedule=schedule)
    return replace(made, sweep=replace(made.sweep, **about), run=run)


@pytest.mark.parametrize("cooldown,saved", [(0.2, 0.8 * 15 / 31), (0.1, 0.9 * 15 / 31)])
def test_the_share_saved_of_five_lengths(cooldown, saved):
    """1 + 2 + 4 + 8 + 16 alone; the first whole, and of each other what lies behind the fork of
    the one before it.
    """
    plan = grid.make(job(replace(WSD, cooldown=cooldown)), "cpu")
    assert len(plan.runs) == 20 and 0.37 < saved < 0.47
    found = trunks.costs((p.flops, p.spent) for p in plan.runs)
    assert found["saved"] == pytest.approx(saved, abs=1e-12)
    one = [p for p in plan.runs if (p.family, p.size) == ("moe", 24)]
    assert [p.begins for p in one] == [
        0,
        *(round(n * (1 - cooldown)) for n in (100, 200, 400, 800)),
    ]
    per = one[0].flops // config.steps(one[0].run)
    assert [p.spent for p in one] == [(config.steps(p.run) - p.begins) * per for p in one]


def test_a_trunk_of_its_own_for_each_rate_and_seed():
    plan = grid.make(job(lr_multipliers=(1.0, 2.0), seeds=(0, 1)), "cpu")
    assert sum(not p.begins for p in plan.runs) == 2 * 2 * 2 * 2  # families, sizes, rates, seeds
    again = grid.make(job(trunks=False, lr_multipliers=(1.0, 2.0), seeds=(0, 1)), "cpu")
    assert [p.id for p in plan.runs] == [p.id for p in again.runs]
    assert trunks.costs((p.flops, p.spent) for p in again.runs) is None


def test_budgets_share_trunks_too():
    """Every size has its own lengths there."""
    plan = grid.make(job(tokens=(), budgets=(1e10, 2e10, 4e10), sizes=(16,)), "cpu")
    assert [bool(p.begins) for p in plan.runs] == [False] * 2 + [True] * 4


def test_an_average_is_one_more_copy_of_the_parameters():
    run = grid.make(job(), "cpu").runs[0].run
    where = config.Where()
    held = [step_time.bytes_held(r, where, "cpu") for r in (run, replace(run, average="ema(0.9)"))]
    assert held[1] - held[0] == 4 * account.parameters(run.model)["total"]


def test_hours_are_of_what_is_trained_here():
    plan = grid.make(job(), "cpu")
    alone = grid.make(job(trunks=False), "cpu")
    walls = [grid.predicted_wall(p, 1) for p in (plan, alone)]
    saved = sum(p.seconds * (1 - p.here) for p in plan.runs)
    assert walls[1] - walls[0] == pytest.approx(saved) and saved > 0
    alone = [p.seconds + p.speed.evaluate + p.speed.setup for p in plan.runs]
    assert grid.predicted_wall(plan, 1000) == max(alone)  # parts of a trunk follow each other


def test_a_schedule_that_knows_the_length_has_no_trunk():
    with pytest.raises(ConfigError, match="schedule.decay=wsd"):
        grid.make(job(Schedule("cosine")), "cpu")


def test_the_verb_says_both(capsys):
    argv = ["--config=quickstart", "--set=sweep.trunks=true", "--set=schedule.decay=wsd"]
    argv += ["--set=schedule.warmup_tokens=2560", "--set=sweep.budgets=", "--set=sweep.sizes=16"]
    argv += [f"--set=sweep.tokens={','.join(map(str, LENGTHS))}"]
    argv += ["--set=sweep.replicate_size=0", "--set=sweep.replicate_budget=0"]
    argv += ["--set=sweep.replicate_seeds="]
    assert cli.main(["plan", *argv]) == 0
    assert " here: 38.7% saved" in capsys.readouterr().out
    assert cli.main(["plan", *argv, "--format=json"]) == 0
    t = json.loads(capsys.readouterr().out)["total"]
    assert t["trunks"]["here"] == t["flops"] < t["trunks"]["alone"]


def record(flops: float, here: float | None):
    shared = None if here is None else {"here": {"flops": here}}
    return {"flops": {"matmul": flops}, "shared": shared}


def test_costs_of_records():
    """A run whose fork was gone has cost all of it."""
    found = trunks.of_results([record(10.0, None), record(20.0, 12.0), record(40.0, None)])
    assert found == {"alone": 70.0, "here": 62.0, "saved": pytest.approx(8 / 70)}
    assert trunks.of_results([record(10.0, None), {"flops": {"matmul": 1.0}}]) is None
    assert trunks.words(None) == [] and "11.4% saved" in trunks.words(found)[0]
