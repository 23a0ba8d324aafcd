"""A step of training by every optimizer over AdamW's: on this machine's CPU in turns, in
CPU-seconds, or on a card (gpu.py).
"""

import statistics
import time

import jax

from experiments.benchmarks import steps, training
from launch.devices import choice
from model import account, parts
from model.config import Execution
from model.optimizers import OPTIMIZERS

CALLS = 3  # of a turn


def _turn(program, state, tokens):
    """(CPU-seconds of a step, seconds of one, the state after it)."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(CALLS):
        state, metrics = program(state, tokens)
    jax.block_until_ready(metrics)
    return (time.process_time() - cpu) / CALLS, (time.perf_counter() - wall) / CALLS, state


def measure(scale: str, rounds: int) -> dict:
    """CPU-seconds of a step by every optimizer, `rounds` turns each, at `bench train`'s shape."""
    heads, width, shape = training.SHAPES[scale]
    c, batch = (
        parts.model(f"attention(n_heads={heads})/dense(d_ff={width})", **shape),
        training.BATCH[scale],
    )
    cases, programs, states = {}, {}, {}
    for name, cls in OPTIMIZERS.items():
        cases[name] = steps.Case(c, Execution(), batch, optimizer=cls())
        programs[name] = choice.compiled(steps.lowered(cases[name]), "cpu")
        states[name] = steps.fresh(cases[name].lm, optimizer=cases[name].optimizer)
    took = {name: [] for name in cases}
    for i in range(rounds + 1):
        for name in sorted(cases, reverse=bool(i % 2)):
            cpu, wall, states[name] = _turn(programs[name], states[name], cases[name].tokens)
            took[name] += [(cpu, wall)] if i else []  # the first turn settles
    return {
        "part": "optimizers",
        "parameters": account.parameters(c)["total"],
        "tokens": batch * c.seq_len,
        "optimizers": {name: _row(c, batch, name, t, took["adamw"]) for name, t in took.items()},
    }


def _row(c, batch: int, name: str, took, reference) -> dict:
    flops = [
        account.executed_flops(c, Execution(), batch, OPTIMIZERS[n]()) for n in (name, "adamw")
    ]
    ratios = [a[0] / b[0] for a, b in zip(took, reference)]
    return {
        "cpu_s": statistics.median(t[0] for t in took),
        "wall_s": statistics.median(t[1] for t in took),
        "cpu_ratio": statistics.median(ratios),
        "cpu_ratios": ratios,
        "executed_ratio": flops[0] / flops[1],
    }


def text(r: dict) -> str:
    lines = [f"a step on {r['tokens']:,} tokens, {r['parameters']:,} parameters, over AdamW's"]
    for name, row in r["optimizers"].items():
        lines.append(
            f"  {name:<10} {row['cpu_s']:8.3f} CPU-seconds  x{row['cpu_ratio']:.3f}"
            f" ({min(row['cpu_ratios']):.3f} to {max(row['cpu_ratios']):.3f}); executed FLOPs"
            f" x{row['executed_ratio']:.3f}"
        )
    return "\n".join(lines)


def on_card(shapes: dict[str, steps.Shape], dtype: str, say) -> None:
    """Seconds of a step by AdamW and by Muon, at the largest batch that both fit in."""
    for size, s in shapes.items():
        if say.late():
            return
        c = steps.model(s)
        ex = steps.by_auto(c, s.batch, dtype)
        cases = {
            n: steps.Case(c, ex, s.batch, optimizer=OPTIMIZERS[n]()) for n in ("adamw", "muon")
        }
        timed = steps.times(cases, say)
        executed = {
            n: account.executed_flops(c, ex, s.batch, k.optimizer) for n, k in cases.items()
        }
        say({"optimizers": size, "found": steps.found(timed), "executed_flops": executed})
