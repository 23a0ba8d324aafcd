"""What saving in the background costs, if it is done every 100 steps: stretches of one model with a
save in them and without, alternating.

A stretch is 30 steps, long enough for the save to be written; what it takes longer than its
neighbour without one is the cost of a save, and is set against 100 steps. Short stretches alternate
often, which a noisy machine asks for.
"""

import dataclasses
import statistics
import tempfile
import time

from data.config import Data
from launch import config
from launch.config import Horizon, Run, Where
from launch.runs import train
from model import account, parts

EVERY, WARM, STRETCH = 100, 5, 30  # the timed steps are WARM .. WARM + STRETCH
SHAPES = {
    "full": dict(pattern="attention(n_heads=8)/dense", d_model=256, n_layers=13),
    "toy": dict(pattern="attention(n_heads=2)/dense(d_ff=32)", d_model=16, n_layers=2),
}


class _Timed(Exception):
    pass


def _stretch(run: Run, where: Where) -> tuple[float, float]:
    """(wall seconds, CPU-seconds) of the timed stretch of one run."""
    marks = {}

    def progress(done, total):
        if done in (WARM, WARM + STRETCH):
            marks[done] = time.perf_counter(), time.process_time()
        if done == WARM + STRETCH:
            raise _Timed

    with tempfile.TemporaryDirectory() as folder:
        try:
            train.train(run, where, folder, progress)
        except _Timed:
            pass
    (w0, c0), (w1, c1) = marks[WARM], marks[WARM + STRETCH]
    return w1 - w0, c1 - c0


def measure(scale: str = "full", rounds: int = 8) -> dict:
    """Seconds of a stretch by contender and round; and with / without a save every 100 steps,
    medians over rounds.
    """
    model = parts.model(vocab_size=320, seq_len=128, **SHAPES[scale])
    run = Run(
        model=model,
        data=Data(source="synthetic", validation_windows=32),
        batch=4,
        horizon=Horizon(steps=WARM + STRETCH + 1),
        dtype="float32",
    )
    one = Where(steps_per_dispatch=1, tensorboard=False, mesh="data=1", scan=True, keep_final=False)
    arms = {"without": one, "with": dataclasses.replace(one, keep_steps=(WARM + 2,))}
    _stretch(run, arms["with"])  # compiles, imports Orbax, fills caches
    seconds = {n: [] for n in arms}
    for i in range(rounds):
        for name in sorted(arms, reverse=bool(i % 2)):
            seconds[name].append(_stretch(run, arms[name]))

    def ratio(k):
        return [
            1 + (a[k] - b[k]) / (b[k] * EVERY / STRETCH)
            for a, b in zip(seconds["with"], seconds["without"])
        ]

    tokens = STRETCH * run.batch * model.seq_len
    contenders = {
        n: {
            "tokens_per_s": tokens / statistics.median(w for w, _ in s),
            "tokens_per_cpu_s": tokens / statistics.median(c for _, c in s),
            "wall_s": [w for w, _ in s],
            "cpu_s": [c for _, c in s],
        }
        for n, s in seconds.items()
    }
    return {
        "part": "checkpoint",
        "parameters": account.parameters(model)["total"],
        "steps": STRETCH,
        "every": EVERY,
        "tokens_per_step": run.batch * model.seq_len,
        "run": config.brief(run),
        "contenders": contenders,
        "wall_ratio": statistics.median(ratio(0)),
        "wall_ratios": ratio(0),
        "cpu_ratio": statistics.median(ratio(1)),
        "cpu_ratios": ratio(1),
    }


def text(r: dict) -> str:
    lines = [
        f"{r['parameters']:,} parameters, stretches of {r['steps']} steps of {r['tokens_per_step']}"
        " tokens, with one background save and without"
    ]
    for name, c in r["contenders"].items():
        lines.append(
            f"  {name:<8} {c['tokens_per_s']:10,.0f} tokens/s  {c['tokens_per_cpu_s']:10,.0f} per"
            f" CPU-second   wall {', '.join(f'{s:.2f}' for s in c['wall_s'])} s"
        )
    lines.append(
        f"  a save every {r['every']} steps: x{r['wall_ratio']:.4f} wall, x{r['cpu_ratio']:.4f} CPU"
        f" (medians of {len(r['wall_ratios'])} rounds)"
    )
    return "\n".join(lines)
