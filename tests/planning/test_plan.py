"""What a sweep will cost: the worked numbers to the digit, sums, inputs, unknowns, memory,
calibration, forecast.
"""

import dataclasses
import json

import pytest

from experiments import cli, recipes
from experiments.planning import (
    budget,
    cost,
    fairness,
    grid,
    ladder,
    step_time,
)
from experiments.recipes import scales
from launch import config, overrides
from launch.devices import accelerators, choice
from launch.devices.accelerators import Figure
from model import account

NOTES = [
    "--flops=3.14e23",
    "--devices=256",
    "--peak_flops=6e13",
    "--utilisation=.7",
    "--price_per_hour=2",
]


SWEEP = [
    "--config=quickstart",
    "--budget=1e18",
    "--device=h200",
    "--devices=8",
    "--price_per_hour=2",
]


def ask(capsys, *argv):
    assert cli.main(["plan", *argv, "--format=json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_worked_numbers_of_the_notes(capsys):
    """3.14e23 / (256 x 6e13) s are 236.6 days; at 70% and $2 an hour $4,153,439. From 236 days: 2 x
    256 x 24 x 236 / 0.7.
    """
    assert cli.main(["plan", *NOTES]) == 0
    out = capsys.readouterr().out
    assert "236.6 days at 100%" in out and "$4,153,439" in out
    assert cli.main(["plan", *NOTES, "--days=236"]) == 0
    assert "$4,142,811.43" in capsys.readouterr().out
    t = ask(capsys, *NOTES)["total"]
    assert t["days_at_peak"] == pytest.approx(3.14e23 / (256 * 6e13) / 86400, rel=1e-12)
    assert (
        t["money"] == pytest.approx(2 * 256 * 24 * t["days_at_peak"] / 0.7, rel=1e-12)
        and t["hours"] == t["days"] * 24
    )
    assert ask(capsys, *NOTES, "--days=236")["total"]["money"] == pytest.approx(
        4142811.43, abs=0.005
    )
    assert ask(capsys, "--flops=3.14e23", "--devices=256", "--device=h100")["total"][
        "days_at_peak"
    ] == pytest.approx(14.3536, abs=1e-3)


def test_a_budget_becomes_runs(capsys):
    a = ask(capsys, *SWEEP)
    runs, total = a["runs"], a["total"]
    assert 0.9e18 < total["flops"] <= 1e18 and total["flops"] == sum(r["flops"] for r in runs)
    assert {r["family"] for r in runs} == {"dense", "moe"} and {
        r["lr_multiplier"] for r in runs
    } == {0.5, 1.0, 2.0}
    assert (
        all(r["size"] in ladder.RUNGS and r["memory"]["fits"] for r in runs)
        and len({r["seed"] for r in runs}) == 3
    )
    for r in runs:
        assert (
            r["tokens"] == r["steps"] * r["batch"] * r["seq_len"]
            and r["hours"] == r["seconds"] / 3600
        )
        assert r["money"] == pytest.approx(2 * r["hours"]) and r["kwh"] == pytest.approx(
            0.7 * 1.1 * r["hours"]
        )
    for k in ("money", "kwh", "kg_co2"):
        assert total[k] == pytest.approx(sum(r[k] for r in runs))
    assert total["kg_co2"] == pytest.approx(total["kwh"] * 0.385)
    assert (
        total["device_hours"] / 8
        <= total["hours"]
        <= total["device_hours"] / 8 + max(r["hours"] for r in runs)
    )
    assert set(a["sources"]) == {
        "flops",
        "step_seconds",
        "hours",
        "memory",
        "money",
        "kwh",
        "kg_co2",
    } and all(a["sources"].values())
    # a pair reads the same tokens, and every arm has the same trials
    cells = {}
    for r in runs:
        cells.setdefault((r["size"], r["budget"], r["seed"]), []).append(
            (r["lr_multiplier"], r["tokens"])
        )
    assert all(len(c) == 6 and len({t for _, t in c}) == 1 for c in cells.values())
    assert [m["size"] for m in a["matched"]] == sorted({r["size"] for r in runs})
    assert all(
        m["by"] == "active_params" and 1 < m["active_ratio"] < 1.01 and 1 < m["flops_ratio"] < 1.02
        for m in a["matched"]
    )
    # what it says to type is that plan
    words = a["command"].split(" --set ")
    job = recipes.load("quickstart")
    assert words[0].startswith("isoflop sweep --config=quickstart") and len(words) > 4
    fields = dict(w.split("=", 1) for w in words[1:])
    sweep = job.sweep
    for k, v in fields.items():
        sweep = (
            overrides.override(sweep, k.removeprefix("sweep."), v)
            if k.startswith("sweep.")
            else sweep
        )
    same = grid.make(
        dataclasses.replace(
            job, sweep=sweep, run=dataclasses.replace(job.run, batch=int(fields["batch"]))
        ),
        "cpu",
    )
    assert sum(p.flops for p in same.runs) == total["flops"]


def test_step_time_from_table_and_utilisation(capsys):
    a = ask(capsys, *SWEEP, "--utilisation=.5")
    r = a["runs"][0]
    assert (
        r["step_seconds"] == pytest.approx(r["flops"] / r["steps"] / (989e12 * 0.5))
        and "50% (given)" in r["step_seconds_source"]
    )
    dense, moe = (
        next(r for r in ask(capsys, *SWEEP)["runs"] if r["family"] == f) for f in ("dense", "moe")
    )
    assert "40%" in dense["step_seconds_source"] and "35%" in moe["step_seconds_source"]


@pytest.mark.parametrize("name,flag", [("money", "--money=50"), ("hours", "--hours=3")])
def test_money_and_hours_as_input(name, flag, capsys):
    total = ask(capsys, "--config=dense_vs_moe", "--device=h100", "--devices=4", flag)["total"]
    wanted = float(flag.partition("=")[2])
    assert 0.85 * wanted < total[name] <= wanted
    assert total["money"] == pytest.approx(
        2 * total["device_hours"]
    )  # the stated default of an H100


def test_isoflop_budgets_as_input(capsys):
    runs = ask(
        capsys,
        "--config=isoflop",
        "--isoflop_budgets=1e15,4e15",
        "--device=l4",
        "--set=sweep.replicate_seeds=1",
    )["runs"]
    for r in (r for r in runs if r["role"] == "grid"):
        assert r["budget"] in (1e15, 4e15)
        if r["family"] == "dense":  # to half a step
            assert abs(r["flops"] - r["budget"]) <= r["flops"] / r["steps"] / 2 + 1


def test_set_pins_what_the_ladder_would_choose(capsys):
    pins = [
        "--set=sweep.sizes=64,128",
        "--set=batch=16",
        "--set=sweep.lr_multipliers=1",
        "--set=sweep.replicate_seeds=",
    ]
    pins += ["--set=sweep.replicate_size=0", "--set=sweep.replicate_budget=0"]
    runs = ask(capsys, *SWEEP, *pins)["runs"]
    assert (
        {r["size"] for r in runs} == {64, 128}
        and {r["batch"] for r in runs} == {16}
        and {r["lr_multiplier"] for r in runs} == {1}
    )


def test_what_is_not_known_stays_unknown(capsys):
    a = ask(capsys, "--config=quickstart", "--device=tpu-v9", "--devices=8", "--price_per_hour=2")
    assert a["total"]["flops"] > 0
    for k in ("hours", "money", "kwh", "kg_co2"):
        assert (
            a["total"][k] is None
            and all(r[k] is None for r in a["runs"])
            and a["sources"][k].startswith("unknown")
        )
    assert all(
        r["memory"]["fits"] is None and r["step_seconds_source"].startswith("unknown")
        for r in a["runs"]
    )
    v5e = ask(capsys, "--config=quickstart", "--device=tpu v5e", "--price_per_hour=1.2")
    assert (
        v5e["total"]["money"] > 0
        and v5e["total"]["kwh"] is None
        and v5e["sources"]["kg_co2"].startswith("unknown")
    )
    capped = ask(capsys, "--config=quickstart", "--device=tpu v5e", "--power_cap=150")
    assert (
        capped["total"]["kwh"] == pytest.approx(capped["total"]["device_hours"] * 0.150 * 1.1)
        and capped["total"]["money"] is None
    )
    assert cli.main(["plan", "--config=quickstart", "--device=tpu-v9"]) == 0
    assert "'tpu-v9' is not in the device table" in capsys.readouterr().out


def test_power_cap_bounds_energy_and_leaves_speed_unknown(capsys):
    free, capped = (
        ask(capsys, *SWEEP, *more)
        for more in ([], ["--power_cap=350", "--pue=1.5", "--grid_carbon=100"])
    )
    assert capped["total"]["hours"] == free["total"]["hours"]
    assert capped["total"]["kwh"] == pytest.approx(free["total"]["kwh"] / 700 * 350 / 1.1 * 1.5)
    assert capped["total"]["kg_co2"] == pytest.approx(capped["total"]["kwh"] * 0.1)
    assert capped["assumed"]["power_cap"]["effect_on_speed"].startswith("unknown: not measured")
    assert ask(capsys, *SWEEP, "--power_cap=900")["total"]["kwh"] == pytest.approx(
        free["total"]["kwh"]
    )


BAD = [
    ([], "--config"),
    (["--config=quickstrat"], "did you mean 'quickstart'"),
    (["--config=quickstart:h20"], "did you mean 'h200'"),
    (["--config=tiny_dense:h200"], "single run"),
    (["--config=tiny_dense", "--budget=1e15"], "single run"),
    (["--config=quickstart", "--price_per_hour=-1"], "cannot be negative"),
    (["--config=quickstart", "--budget=1e18", "--money=5"], "--budget and --money are given"),
    (["--config=quickstart", "--devices=0"], "at least 1"),
    (["--config=quickstart", "--budget=0"], "above 0"),
    (["--config=quickstart", "--budget=nan"], "finite"),
    (["--config=quickstart", "--budget=ten"], "--budget"),
    (["--config=quickstart", "--budget=1e8"], "too few for the ladder"),
    (["--config=quickstart", "--isoflop_budgets=1e15,x"], "numbers expected"),
    (["--config=quickstart", "--isoflop_budgets=1e15,1e15"], "different"),
    (["--config=positions", "--isoflop_budgets=1e15"], "grid of tokens"),
    (["--config=quickstart", "--utilisation=40"], "at most 1"),
    (["--config=quickstart", "--pue=.9"], "at least 1"),
    (["--config=quickstart", "--money=5", "--device=l4"], "give --price_per_hour"),
    (["--config=quickstart", "--hours=5", "--device=tpu-v9"], "is unknown"),
    (["--config=quickstart", "--device=h200", "--calibrate"], "leave out --device"),
    (["--config=quickstart", "--set=sweep.match=flop"], "sweep.match"),
    (["--config=quickstart", "--set=sweep.families=dense,alibie"], "unknown family"),
    (["--flops=1e20", "--config=quickstart"], "leave out --config"),
    (["--flops=1e20", "--days=-1"], "above 0"),
    (["--days=3", "--config=quickstart"], "give --flops too"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, capsys):
    assert cli.main(["plan", *argv]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.count("\n") == 1 and words in out.err, out.err


RUN = dataclasses.replace(
    ladder.at(recipes.load("quickstart").run, 256, "dense"),
    batch=32,
    horizon=config.Horizon(steps=10),
)


def fitted(room: float, count: int = 1) -> step_time.Fit:
    target = step_time.named("h100", count, config.Where())
    return step_time.fit(
        RUN, config.Where(), target._replace(memory=Figure(room / step_time.USABLE + 1, "given"))
    )


def test_what_makes_it_fit():
    """Micro-batches first, as few as will do, then remat, then more devices; or it does not fit."""

    def held(**kw):
        return step_time.bytes_held(RUN, dataclasses.replace(config.Where(), **kw), "gpu")

    plain = (True, 1, False, "")

    def of(f):
        return (f.fits, f.accumulate, f.remat, f.mesh)

    assert of(fitted(held())) == plain
    assert of(fitted(held() - 1)) == (True, 2, False, "") and of(
        fitted(held(accumulate=2) - 1)
    ) == (True, 4, False, "")
    smallest = min(held(accumulate=k) for k in (1, 2, 4, 8, 16, 32))
    tight = fitted(smallest - 1)
    assert tight.fits and tight.remat and not tight.mesh
    least = min(held(accumulate=k, remat=True, scan=True) for k in (1, 2, 4, 8, 16, 32))
    assert (
        of(fitted(least - 1)) == (False, 1, False, "") and of(fitted(least - 1, 8))[3] == "fsdp=2"
    )
    f = fitted(least - 1, 8)
    assert (
        f.bytes
        == held(accumulate=f.accumulate, remat=f.remat, scan=f.remat, mesh=f.mesh)
        <= f.limit
    )
    assert step_time.devices_of(f) == 2 and step_time.devices_of(tight) == 1


def test_memory_is_the_count_of_one_device():
    ex = choice.execution(
        RUN.model, config.Where(), "bfloat16", "gpu", 1, RUN.batch * RUN.model.seq_len
    )
    m = account.memory(RUN.model, ex, RUN.batch)
    assert step_time.bytes_held(RUN, config.Where(), "gpu") == sum(
        v for k, v in m.items() if k != "kv_cache_per_token"
    )


def test_wall_is_a_schedule():
    assert step_time.wall([(5.0, "a", 2.0), (4.0, "a", 2.0), (3.0, "b", 1.0)], 2) == 8.0
    assert step_time.wall([(5.0, "a", 0.0)], 8) == 5.0


def test_positions_differ_by_their_table_alone():
    runs = grid.make(recipes.load("positions"), "cpu").runs
    cells = {}
    for p in runs:
        cells.setdefault((p.size, p.run.seed), {})[p.family] = p
    assert len(cells) == 9 and all(
        set(c) == {"sinusoidal", "learned", "rope"} for c in cells.values()
    )
    for (size, _), c in cells.items():
        n = {f: account.parameters(p.run.model)["total"] for f, p in c.items()}
        assert (
            n["learned"] - n["rope"]
            == n["learned"] - n["sinusoidal"]
            == c["rope"].run.model.seq_len * size
        )
        assert (
            len({p.tokens for p in c.values()})
            == len({str(p.run.data) for p in c.values()})
            == len({p.flops for p in c.values()})
            == 1
        )


def test_granularity_keeps_active_and_total():
    for scale in ("granularity", "granularity:h200"):
        for p in grid.make(recipes.load(scale), "cpu").runs:
            n, c = account.parameters(p.run.model), p.run.model
            own, d_ff = c.routed[0], 4 * c.d_model
            assert (own.n_experts, own.top_k) == tuple(map(int, p.family.split("_")[1:]))
            assert own.top_k * own.width(c) == d_ff
            assert n["groups"]["experts"] == 8 * 2 * c.d_model * d_ff * c.n_layers
            dense = account.parameters(ladder.shape(c, c.d_model, "dense"))
            assert n["active"] - n["groups"]["router"] == dense["active"]


@pytest.mark.parametrize(
    "name", ["quickstart", "isoflop", "dense_vs_moe", "positions", "granularity", "learning_rate"]
)
def test_one_gpu_and_under_an_hour(name, capsys):
    """By the plan's own prediction."""
    a = ask(capsys, f"--config={name}:h200", "--device=h200")
    assert (
        a["devices"] == 1
        and 0.1 < a["total"]["hours"] < 1
        and all(r["memory"]["fits"] for r in a["runs"])
    )
    assert recipes.load(f"{name}:tiny") == recipes.load(name)
    assert recipes.load(f"{name}:h200").run.data.source == scales.SCALES["h200"].source


def test_pod(capsys):
    a = ask(capsys, "--config=positions:pod", "--device=h100", "--devices=256")
    assert (
        a["total"]["flops"] > 1e21
        and a["total"]["hours"] < 24 * 7
        and all(r["memory"]["fits"] for r in a["runs"])
    )


def test_ladder_chooses_twenty_tokens_per_parameter():
    base = recipes.load("quickstart").run.model
    for c in (1.6e11, 1e16, 1e20):
        d = ladder.best(base, c)
        model = ladder.shape(base, d, "dense")
        ratio = (
            c / account.flops_per_token(model)["matmul"] / account.parameters(model)["multiplied"]
        )
        assert 10 < ratio < 40
    assert ladder.best(base, 1.6e11) == 32  # quickstart's middle
    same = budget.scaled(recipes.load("quickstart"), 1.0)
    assert same.job == recipes.load("quickstart") and not same.notes


def test_cost_by_hand():
    r = cost.rates(accelerators.DEVICES["H200"], price=3.0, pue=2.0, grid=500.0)
    assert cost.cost(10.0, r) == (30.0, 14.0, 7.0)
    assert (
        cost.rates(accelerators.DEVICES["H100"]).price.value == 2.0
        and cost.rates(accelerators.DEVICES["H200"]).price is None
    )
    assert fairness.BY == ("active_params", "flops")
