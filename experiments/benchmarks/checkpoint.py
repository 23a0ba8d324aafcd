"""What saving in the background costs: steps of one model with a checkpoint every 100 and without, alternating."""

import statistics
import tempfile
import time

from data.config import Data
from launch import config, train
from launch.config import Horizon, Run, Where
from model import account
from model.config import Model

EVERY, WARM = 100, 25  # the timed stretch is steps WARM .. WARM + EVERY: one save, and time enough for it to be written
SHAPES = {"full": dict(d_model=256, n_heads=8, d_ff=1024, n_layers=13), "toy": dict(d_model=16, n_heads=2, d_ff=32, n_layers=2)}


class _Timed(Exception):
    pass


def _stretch(run: Run, where: Where) -> tuple[float, float]:
    """(wall seconds, CPU-seconds) of the timed stretch of one run."""
    marks = {}

    def progress(done, total):
        if done in (WARM, WARM + EVERY):
            marks[done] = time.perf_counter(), time.process_time()
        if done == WARM + EVERY:
            raise _Timed

    with tempfile.TemporaryDirectory() as folder:
        try:
            train.train(run, where, folder, progress)
        except _Timed:
            pass
    (w0, c0), (w1, c1) = marks[WARM], marks[WARM + EVERY]
    return w1 - w0, c1 - c0


def measure(scale: str = "full", rounds: int = 3) -> dict:
    """Seconds of 100 steps by contender and round, and the medians of their ratios."""
    model = Model(vocab_size=320, seq_len=128, **SHAPES[scale])
    run = Run(
        model=model, data=Data(source="synthetic", validation_windows=32), batch=4, horizon=Horizon(steps=WARM + EVERY + 1), dtype="float32"
    )
    arms = {
        n: Where(steps_per_dispatch=1, tensorboard=False, mesh="data=1", scan=True, checkpoint_every=k)
        for n, k in (("without", 0), ("with", EVERY))
    }
    _stretch(run, arms["with"])  # compiles, imports Orbax, fills caches
    seconds = {n: [] for n in arms}
    for i in range(rounds):
        for name in sorted(arms, reverse=bool(i % 2)):
            seconds[name].append(_stretch(run, arms[name]))
    ratio = lambda k: [a[k] / b[k] for a, b in zip(seconds["with"], seconds["without"])]
    tokens = EVERY * run.batch * model.seq_len
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
        "steps": EVERY,
        "tokens_per_step": run.batch * model.seq_len,
        "run": config.brief(run),
        "contenders": contenders,
        "wall_ratio": statistics.median(ratio(0)),
        "wall_ratios": ratio(0),
        "cpu_ratio": statistics.median(ratio(1)),
        "cpu_ratios": ratio(1),
    }


def text(r: dict) -> str:
    lines = [f"{r['parameters']:,} parameters, {r['steps']} steps of {r['tokens_per_step']} tokens, one background save in them"]
    for name, c in r["contenders"].items():
        lines.append(
            f"  {name:<8} {c['tokens_per_s']:10,.0f} tokens/s  {c['tokens_per_cpu_s']:10,.0f} per CPU-second   wall {', '.join(f'{s:.2f}' for s in c['wall_s'])} s"
        )
    lines.append(f"  with / without: wall {r['wall_ratio']:.4f}, CPU {r['cpu_ratio']:.4f} (medians of {len(r['wall_ratios'])} rounds)")
    return "\n".join(lines)
