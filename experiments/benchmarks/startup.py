"""Startup: from the start of a process to the end of the first update of a 12-layer model, with an
empty compilation cache and a filled one, and from the start of a second run of equal shape in the
same process. The synthetic source: no tokens are prepared.
"""

import json
import os
import statistics
import tempfile

from data.config import Data
from experiments.benchmarks import contest
from launch import config, overrides
from launch.config import Horizon, Job, Run, Where
from launch.devices import allocator
from model import account, parts

SHAPES = {
    "full": dict(vocab_size=1024, seq_len=128, d_model=128, n_layers=12),
    "toy": dict(
        pattern="attention(n_heads=2)/dense(d_ff=32)",
        vocab_size=320,
        seq_len=16,
        d_model=16,
        n_layers=1,
    ),
}
CONTENDERS = ("cold", "cached", "again")


def _once(run: Run, where: Where, place: str, name: str) -> dict:
    """One process: to its first step, and its second run's."""
    spec = {
        "run": config.to_dict(run),
        "where": config.to_dict(where),
        "folder": os.path.join(place, name),
        "again": True,
    }
    path = os.path.join(place, f"{name}.json")
    with open(path, "w") as f:
        json.dump(spec, f)
    c = contest.Contender(
        name, ["-m", "experiments.benchmarks.ours", path], allocator.environment()
    )
    c.stretch()
    c.close()
    return {"first_step_s": c.first_step_s, "peak_bytes": c.ready["peak_bytes"], **c.stretches[0]}


def measure(part: str, scale: str, rounds: int, names: list[str], settings: list[str]) -> dict:
    """Medians over `rounds` pairs of a cold and a cached process."""
    run = Run(
        model=parts.model(**SHAPES[scale]),
        data=Data(source="synthetic"),
        batch=2,
        horizon=Horizon(steps=1000),
        dtype="float32",
    )
    asked = overrides.set_fields(
        Job(run, Where(mesh="data=1", keep_final=False, steps_per_dispatch=1)), settings
    )
    config.check(asked.run)
    cold, cached = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            where = overrides.override(asked.where, "cache", os.path.join(place, "cache"))
            cold.append(_once(asked.run, where, place, "cold"))
            cached.append(_once(asked.run, where, place, "cached"))

    def of(rows, k):
        return statistics.median(r[k] for r in rows)

    def entry(s, peak):
        return {
            "tokens_per_s": None,
            "tokens_per_cpu_s": None,
            "first_step_s": s,
            "peak_bytes": peak,
        }

    found = {
        "cold": entry(of(cold, "first_step_s"), of(cold, "peak_bytes")),
        "cached": entry(of(cached, "first_step_s"), of(cached, "peak_bytes")),
        "again": entry(of(cold + cached, "again_s"), of(cold, "peak_bytes")),
    }
    c = asked.run.model
    return {
        "part": part,
        "what": (
            f"startup to the first step: {c.n_layers} layers, d_model {c.d_model},"
            f" {account.parameters(c)['total']:,} parameters, batch {run.batch} x {c.seq_len}"
        ),
        "machine": contest.machine(),
        "run": config.brief(asked.run),
        "rounds": rounds,
        "contenders": {n: found[n] for n in names or CONTENDERS},
        "notes": [
            (
                "  cold: empty compilation cache; cached: filled; again: a second run of equal"
                " shape in the same process"
            ),
            (
                "  again: its first update was under way after"
                f" {of(cold + cached, 'again_begun_s'):.3f} s"
            ),
        ],
    }
