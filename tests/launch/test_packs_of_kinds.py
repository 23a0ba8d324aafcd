"""Runs of every kind in packs, against the same runs alone: their whole records."""

import dataclasses
import json
import math
import random

import pytest

from data.config import Data
from launch import config
from launch.config import Horizon
from launch.runs import pack, record, train, trunk
from model import optim
from model.optimizers import OPTIMIZERS
from model.parametrisation import Mup
from tests.launch.stopped_runs import RUNS, differences
from tests.launch.test_launch import lines
from tests.launch.test_packs import ALONE, packed, runs, stopped

CLOCKS = ("seconds", "cpu_seconds", "energy", "tokens_per_s", "members", "mfu_matmul", "where")
CLOCKS += ("device", "commit", "shared", "waited_s")


def apart(a, b, path: str = "") -> list[tuple[float, str]]:
    """(relative difference, where) of every number of two records; infinite where anything else
    differs. Clocks are left out.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        other = a.keys() ^ b.keys()
        if names := sorted(other.difference(CLOCKS)):
            return [(math.inf, f"{path}: {names}")]
        found = [apart(a[k], b[k], f"{path}.{k}") for k in a if k not in CLOCKS]
        return [row for rows in found for row in rows]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        found = [apart(x, y, f"{path}[{k}]") for k, (x, y) in enumerate(zip(a, b))]
        return [row for rows in found for row in rows]
    if isinstance(a, float) and isinstance(b, float):
        return [(abs(a - b) / max(abs(a), abs(b), 1e-300), path)] if a != b else []
    return [] if a == b else [(math.inf, f"{path}: {a!r}, {b!r}")]


def compared(one, other) -> list[tuple[float, str]]:
    """`apart` of the lines and the results of two finished folders, the largest first."""
    own, theirs = (record.result(str(f)) for f in (one, other))
    found = apart(own, theirs, "result") + apart(lines(one), lines(other), "lines")
    return sorted(found, reverse=True)


def mixture(folder) -> Data:
    for name, n in (("a", 900), ("b", 500)):
        text = "".join(f"{name}{k * k} is the square of {k}\n" for k in range(n))
        (folder / f"{name}.txt").write_text(text)
    sources = ", ".join(f"{n}=text(path='{folder}/{n}.txt')" for n in "ab")
    return Data(sources=sources, mixture="a=0.7,b=0.3", validation_windows=10)


def documents(folder) -> Data:
    drawn = random.Random(0)
    words = (drawn.choices("abcdefgh ", k=drawn.randrange(4, 40)) for _ in range(400))
    text = "".join(json.dumps({"text": "".join(w)}) + "\n" for w in words)
    (folder / "short.jsonl").write_text(text)
    path = str(folder / "short.jsonl")
    return Data(source="jsonl", path=path, documents="apart", validation_windows=16)


def mup(run):
    """Its model, at twice the width of a base."""
    base = Mup(base_width=run.model.d_model // 2)
    return dataclasses.replace(run.model, parametrisation=base)


# name: fields of the run, fields of where it is executed
KINDS = {
    "micro-batches": ({}, {"accumulate": 4}),
    "the noise scale": ({}, {"accumulate": 2, "noise_scale": True}),
    "ema": ({"average": "ema(0.9)"}, {}),
    "lawa": ({"average": "lawa(3,2)"}, {}),
    "a mixture": ({"data": mixture}, {}),
    "documents apart": ({"data": documents}, {}),
    "muP": ({"model": mup}, {}),
    "scanned layers": ({}, {"scan": True, "remat": True}),
    **{name: ({"optimizer": cls}, {}) for name, cls in OPTIMIZERS.items()},
}
# differences of nearly equal sums, in which rounding grows
LOOSE = (".se", "noise", "signal", "entropy")


def made(kind: str, n: int, steps: int, folder, name: str = "dense") -> tuple[list, dict]:
    fields, where = KINDS[kind]
    todo = runs(name, n, steps)
    if "data" in fields:
        text = fields["data"](folder)
        fields = {"data": lambda r: dataclasses.replace(text, seed=r.data.seed)}
        where = {**where, "cache": str(folder / "cache")}
    elif "optimizer" in fields:
        cls = fields["optimizer"]
        fields = {"optimizer": lambda r: cls(lr=r.optimizer.lr * cls.AGAINST_ADAMW)}

    def one(r):
        own = {k: v(r) if callable(v) else v for k, v in fields.items()}
        return dataclasses.replace(r, **own)

    return [one(r) for r in todo], where


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "moe"])
@pytest.mark.parametrize("kind", KINDS)
def test_records_are_those_of_the_runs_alone(kind, name, tmp_path):
    """Three runs of unequal length in two places; and again in a pack that was told to stop and
    went on, to the same bits.
    """
    todo, where = made(kind, 3, 20, tmp_path, name)
    told = packed(todo, tmp_path / "pack", 2, **where)
    assert len(told) == 3 and not any(t.error for t in told.values())
    for k, run in enumerate(todo):
        alone = dataclasses.replace(ALONE, **where)
        train.train(run, alone, str(tmp_path / f"alone{k}"))
        found = compared(tmp_path / "pack" / str(k), tmp_path / f"alone{k}")
        tight = [row for row in found if not any(word in row[1] for word in LOOSE)]
        assert not tight or tight[0][0] < 2e-6, tight[:5]
        assert not found or found[0][0] < 1e-4, found[:5]
    stopped(todo, tmp_path / "cut", 2, 11, "2 runs are saved", **where)
    packed(todo, tmp_path / "cut", 2, **where)
    for k in range(3):
        assert differences(tmp_path / "cut" / str(k), tmp_path / "pack" / str(k)) == []


# ---- two hundred updates

LONG = 200


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "moe"])
@pytest.mark.parametrize("mesh", ["member=8", "data=1", "member=4,data=2"])
def test_two_hundred_updates(name, mesh, tmp_path):
    todo = runs(name, 8, LONG)
    packed(todo, tmp_path / "pack", 8, mesh, log_every=1)
    worst = []
    for k in (0, 3, 7):
        train.train(todo[k], ALONE, str(tmp_path / f"alone{k}"))
        mine, own = (lines(tmp_path / f) for f in (f"pack/{k}", f"alone{k}"))
        both = zip((m["loss"] for m in mine), (m["loss"] for m in own), strict=True)
        worst += [abs(a / b - 1) for a, b in both]
    print(name, mesh, max(worst))
    assert max(worst) < 2e-6


# ---- trunks, divergence, takeover


@pytest.mark.slow
def test_branches_of_trunks(tmp_path):
    """Two trunks of three lengths: each length of both is a pack, and begins at the fork before."""
    s = optim.Schedule("wsd", warmup_steps=3)
    bases = [dataclasses.replace(r, schedule=s, dtype="float32") for r in runs("dense", 2, 20)]
    lengths, chains = (10, 20, 40), {}

    def of(steps):
        return [dataclasses.replace(r, horizon=Horizon(steps=steps)) for r in bases]

    for family in zip(*(of(n) for n in lengths), strict=True):
        chains |= dict(zip(map(config.run_id, family), trunk.chains(family), strict=True))
    where = dataclasses.replace(ALONE, members=2)
    for steps in lengths:
        orders = iter(
            pack.Order(r, str(tmp_path / config.run_id(r)), {}, chains[config.run_id(r)])
            for r in of(steps)
        )
        told: list[pack.Told] = []
        pack.train(where, lambda orders=orders: next(orders, None), told.append)
        for t in told:
            alone = tmp_path / f"alone-{config.run_id(t.order.run)}"
            train.train(t.order.run, ALONE, str(alone))
            found = compared(t.order.folder, alone)
            assert not found or found[0][0] < 2e-6, found[:5]
            assert bool(t.result["shared"]) == (steps > 10)


@pytest.mark.slow
def test_who_diverges_early_makes_room(tmp_path):
    """Its place is the next one's, whose bits do not depend on who had it before."""
    todo = runs("dense", 4, 40)
    wild = dataclasses.replace(todo[0], optimizer=dataclasses.replace(todo[0].optimizer, lr=1e9))
    packed([todo[3], todo[1], todo[2]], tmp_path / "well", 2)
    told = packed([wild, todo[1], todo[2], todo[3]], tmp_path / "ill", 2)
    assert told[tmp_path / "ill" / "0"].result["status"] == "diverged"
    assert told[tmp_path / "ill" / "0"].result["steps"] < 40
    for ill, well in (("1", "1"), ("2", "2"), ("3", "0")):
        assert differences(tmp_path / "ill" / ill, tmp_path / "well" / well) == []
    train.train(wild, ALONE, str(tmp_path / "alone"))
    mine, own = (record.result(str(tmp_path / f)) for f in ("ill/0", "alone"))
    assert (mine["diverged_at"], mine["why"]) == (own["diverged_at"], own["why"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_place_and_company_gives_the_same_bits(name, tmp_path):
    """Alone in a pack, at its end, refilled, with others beside it."""
    todo = runs(name, 5, 20)
    packed(todo, tmp_path / "all", 4)
    packed([todo[4]], tmp_path / "one", 4)
    packed([todo[1], todo[2], todo[3], todo[4]], tmp_path / "last", 4)
    for folder, k in (("one", 0), ("last", 3)):
        assert differences(tmp_path / folder / str(k), tmp_path / "all" / "4") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("members", [1, 2, 3, 8])
def test_another_number_of_members_takes_over(name, members, tmp_path):
    todo = runs(name, 4, 20)
    stopped(todo, tmp_path / "cut", 4, 11, "4 runs are saved")
    packed(todo, tmp_path / "cut", members)
    for k, run in enumerate(todo):
        train.train(run, ALONE, str(tmp_path / f"alone{k}"))
        found = compared(tmp_path / "cut" / str(k), tmp_path / f"alone{k}")
        assert not found or found[0][0] < 2e-6, found[:5]
