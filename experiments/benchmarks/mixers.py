"""What a token costs in each mixer, forward and backward, over the context; and that of our own
attention in chunks, which is timed beside each of them.

python -m experiments.benchmarks.mixers [--lengths=256,1024,4096] [--rounds=3] [--only=mamba2,gla]
    [--plot=docs/mixers.svg]    one JSON object; about eight minutes on two cores

Microseconds of CPU time of this process, the least of all rounds; 4,096 tokens a call. A mixer
alone, with its matrices, without the layer's norm and MLP.
"""

import argparse
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import contest
from launch.config import Where
from launch.devices import allocator, choice
from model import account, parts
from model.params import is_parameter
from model.registry import MIXERS

TOKENS = 4096
# heads 64 wide, as the papers have them; what a mixer is not told is its default
MADE = {"latent": "latent(kv_rank=64,d_rope=32)", "rg_lru": "rg_lru(n_heads=4)"}


def prepared(mixer: str, d_model: int, length: int, tokens: int):
    """(a call that goes forward and backward once and waits, bytes of temporaries, the model)."""
    batch = max(1, tokens // length)
    m = parts.model(f"{mixer}/dense", d_model=d_model, n_layers=1, seq_len=length, vocab_size=8)
    ex = choice.execution(m, Where(), "float32", "cpu", 1, batch * length)
    module, rng = m.pattern[0].mixer.module(m, ex, "mixer"), np.random.default_rng(0)
    x_BTD = jnp.asarray(rng.standard_normal((batch, length, d_model)), jnp.float32)
    boxed = jax.eval_shape(module.init, jax.random.key(0), x_BTD)["params"]

    def drawn(box):
        return jnp.asarray(box.drawn(rng, box.value.shape))

    held = jax.tree.map(drawn, boxed, is_leaf=is_parameter)

    def gradient(held, x_BTD, g_BTD):
        return jax.vjp(lambda w, x: module.apply({"params": w}, x), held, x_BTD)[1](g_BTD)

    program = choice.compiled(jax.jit(gradient).lower(held, x_BTD, x_BTD), jax.default_backend())

    def one():
        jax.block_until_ready(program(held, x_BTD, x_BTD))

    one()
    return one, program.memory_analysis().temp_size_in_bytes, m


def spent(call) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(names, lengths, rounds: int, d_model: int = 256, tokens: int = TOKENS) -> dict:
    """Rows of {"mixer", "context", "us", "attention_us", "ratio", "bytes", "state", "cache",
    "flops"}: of a token, but `state`, of a sequence.
    """
    rows = []
    for length in lengths:
        beside, _, _ = prepared("attention", d_model, length, tokens)
        for name in names:
            call, held, m = prepared(MADE.get(name, name), d_model, length, tokens)
            pairs = [(spent(call), spent(beside)) for _ in range(rounds)]
            us, own = (min(p) / tokens * 1e6 for p in zip(*pairs))
            state, mixer = account.state(m), m.pattern[0].mixer
            rows.append(
                {
                    "mixer": name,
                    "context": length,
                    "us": us,
                    "attention_us": own,
                    "ratio": us / own,
                    "bytes": held / tokens,
                    "state": state.per_sequence,
                    "cache": state.per_token,
                    "flops": 2 * mixer.multiplied(m) + mixer.map_flops(m, False),
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"machine": contest.machine(), "rounds": rounds, "d_model": d_model, "mixers": rows}


def plot(result: dict, path: str) -> None:
    """Cost of a token over the context, a line a mixer, attention in black."""
    import matplotlib
    from matplotlib import figure

    fig = figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes, by = fig.add_subplot(), {}
    for row in result["mixers"]:
        by.setdefault(row["mixer"], []).append((row["context"], row["us"]))
    last = max(row["context"] for row in result["mixers"])
    costs = [us for line in by.values() for _, us in line]
    for k, (name, line) in enumerate(sorted(by.items(), key=lambda kv: -kv[1][-1][1])):
        style = {"linewidth": 1.2, "linestyle": "-" if k < 10 else "--"}  # ten colours, twice
        if name == "attention":
            style = {"color": "black", "linewidth": 2.5}
        axes.loglog(*zip(*line), marker="o", markersize=3, label=name, **style)
    axes.set_xticks([c for c, _ in line], [f"{c:,}" for c, _ in line])
    round_ones = [v for v in (5, 10, 20, 50, 100, 200, 500) if min(costs) <= v <= max(costs)]
    axes.set_yticks(round_ones, [str(v) for v in round_ones])
    axes.minorticks_off()
    axes.set_xlabel("context, tokens")
    axes.set_ylabel("CPU time of a token, forward and backward (us)")
    axes.set_xlim(right=last * 1.1)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        fig.savefig(path)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--lengths", default="256,1024,4096")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(MIXERS))
    parser.add_argument("--scale", choices=("full", "toy"), default="full")
    parser.add_argument("--plot", default="")
    given = parser.parse_args(argv)
    unknown = sorted(set(given.only.split(",")) - set(MIXERS))
    if unknown or given.rounds < 1 or not given.lengths.replace(",", "").isdigit():
        what = f"unknown mixers {', '.join(unknown)}" if unknown else "whole numbers expected"
        print(f"mixers: {what}: --only takes {', '.join(MIXERS)}", file=sys.stderr)
        return 2
    more = {"d_model": 16, "tokens": 32} if given.scale == "toy" else {}
    lengths = [int(n) for n in given.lengths.split(",")]
    found = measure(given.only.split(","), lengths, given.rounds, **more)
    print(json.dumps(found))
    if given.plot:
        plot(found, given.plot)
    return 0


if __name__ == "__main__":
    allocator.restart()  # memory as every command of ours has it
    sys.exit(main())
