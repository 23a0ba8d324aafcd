"""How the time of a step grows: with tokens and depth, which it should be proportional to, and over
width and context.

python -m experiments.benchmarks.growth [--rounds=5] [--plot=docs/growth.png]     one JSON object;
                                                                                  about three
                                                                                  minutes on two
                                                                                  cores

Points alternate, round by round; CPU-seconds of this process are compared, FLOPs by the `matmul`
convention.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import contest
from launch.config import Where
from launch.devices import allocator, choice
from model import account, params, parts, step
from model.config import Model
from model.lm import LM, abstract
from model.optimizers import AdamW

BASE = parts.model(vocab_size=1056, seq_len=256, d_model=128)
BATCH = 16
TOY = parts.model("attention(n_heads=2)/dense(d_ff=32)", vocab_size=64, seq_len=16, d_model=16)


def points(base: Model, batch: int, toy: bool) -> dict[str, list[tuple[Model, int]]]:
    """(model, batch) by what grows."""

    def heads(d):
        return parts.layers(f"attention(n_heads={max(1, d // 32)})/dense")

    def wider(d):
        return dataclasses.replace(base, d_model=d, pattern=heads(d))

    def longer(t):
        return (dataclasses.replace(base, seq_len=t), max(1, batch * base.seq_len // t))

    return {
        "tokens": [(base, b) for b in (batch, 2 * batch, 4 * batch)[: 2 if toy else 3]],
        "depth": [
            (dataclasses.replace(base, n_layers=n), batch) for n in (2, 4, 8)[: 2 if toy else 3]
        ],
        "width": [(wider(d), batch) for d in ((16, 32) if toy else (64, 128, 256, 384))],
        "context": [longer(t) for t in ((16, 32) if toy else (128, 256, 512, 1024))],
    }


def prepared(c: Model, batch: int):
    """A call that takes one donated step and waits for it."""
    ex = choice.execution(c, Where(), "float32", "cpu", 1, batch * c.seq_len)
    lm, o = LM(c, ex), AdamW()
    state = step.create(lm, o, jax.tree.map(jnp.asarray, params.initial(abstract(c, ex), 0)))
    hyper = {"lr": 3e-4, "embed_lr": 3e-4, "head_lr": 3e-4, "weight_decay": 0.1}
    tokens = (
        np.random.default_rng(0).integers(0, c.vocab_size, (batch, c.seq_len + 1)).astype(np.int32)
    )
    lowered = jax.jit(
        functools.partial(step.train_step, lm, o, hyper=hyper), donate_argnums=0
    ).lower(state, tokens)
    program = choice.compiled(lowered, jax.default_backend())

    def one():
        nonlocal state
        state, metrics = program(state, tokens)
        jax.block_until_ready(metrics)

    one()
    return one


def measure(base: Model = BASE, batch: int = BATCH, rounds: int = 5) -> dict:
    """By what grows, rows of {"context", "width", "depth", "tokens", "gflop", "cpu_s",
    "gflop_per_cpu_s"}: medians.
    """
    wanted = points(base, batch, base is TOY)
    calls = {point: prepared(*point) for row in wanted.values() for point in row}
    spent = {point: [] for point in calls}
    for _ in range(rounds):
        for point, one in calls.items():
            one()  # brings back what the others have taken away
            started = time.process_time()
            one()
            spent[point].append(time.process_time() - started)

    def row(c, b):
        gflop = account.flops_per_token(c)["matmul"] * b * c.seq_len / 1e9
        cpu = float(np.median(spent[c, b]))
        shape = {
            "context": c.seq_len,
            "width": c.d_model,
            "depth": c.n_layers,
            "tokens": b * c.seq_len,
        }
        return shape | {"gflop": gflop, "cpu_s": cpu, "gflop_per_cpu_s": gflop / cpu}

    return {
        "machine": contest.machine(),
        "rounds": rounds,
        "growth": {k: [row(*p) for p in ps] for k, ps in wanted.items()},
    }


def plot(answer: dict, path: str) -> None:
    """CPU time of a step against its FLOPs: one line for each thing that grows, and the
    proportional one.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, label in (
        ("tokens", "tokens"),
        ("depth", "layers"),
        ("width", "d_model"),
        ("context", "context, tokens held"),
    ):
        rows = answer["growth"][name]
        left.loglog([r["gflop"] for r in rows], [r["cpu_s"] for r in rows], marker="o", label=label)
    low, high = left.get_xlim()
    middle = answer["growth"]["tokens"][0]
    left.loglog(
        [low, high],
        [x / middle["gflop_per_cpu_s"] for x in (low, high)],
        "k:",
        lw=1,
        label="proportional",
    )
    left.set(xlabel="GFLOP a step (matmul)", ylabel="CPU-seconds a step", title="Growth of a step")
    left.legend(frameon=False, fontsize=8)
    for name, label in (("width", "d_model"), ("context", "context")):
        rows = answer["growth"][name]
        right.semilogx(
            [r[name] for r in rows],
            [r["gflop_per_cpu_s"] for r in rows],
            marker="o",
            base=2,
            label=label,
        )
    right.set_xticks([64, 128, 256, 512, 1024], [64, 128, 256, 512, 1024])
    best = max(
        r["gflop_per_cpu_s"] for name in ("width", "context") for r in answer["growth"][name]
    )
    right.set(
        xlabel="d_model or context",
        ylabel="GFLOP per CPU-second",
        title="Rate over width and context",
        ylim=(0, 1.1 * best),
    )
    right.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def main(argv=None) -> int:
    p = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--plot", default="")
    p.add_argument("--scale", choices=("full", "toy"), default="full")
    a = p.parse_args(argv)
    if a.rounds < 1:
        p.error(f"--rounds={a.rounds} must be at least 1")
    if a.plot and not os.path.isdir(os.path.dirname(os.path.abspath(a.plot))):
        p.error(f"--plot={a.plot}: there is no such folder; make it first")
    answer = measure(*((TOY, 2) if a.scale == "toy" else (BASE, BATCH)), a.rounds)
    if a.plot:
        plot(answer, a.plot)
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    allocator.restart()  # memory as every command of ours has it
    sys.exit(main())
