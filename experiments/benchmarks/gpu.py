"""What a card does: numerics against the CPU first, then times. Each part takes less than eight
minutes on one H200-class card.

python -m experiments.benchmarks.gpu --part=dense|moe|members|packs|decode|trunks|optimizers|mixers
    [--scale=toy]

dense
    12M to 1.3B parameters at context 1024 or 2048: attention by XLA and by cuDNN, layers scanned
    and unrolled, halves of a batch until it fits
moe
    a mixture of equal active parameters, in every implementation of the experts, over the dense
    model
members
    K models mapped through one step, over the fastest step of one model at the same tokens each;
    one update a call, and twenty
packs
    the quickstart recipe with eight seeds: as packs, and one run at a time
decode    prefill and decode
trunks    runs of five lengths by themselves and from each other's forks; not measured on a card yet
optimizers    a step by Muon beside one by AdamW; not measured on a card yet
mixers    12 layers with every mixer, at 1,024 and 8,192 tokens; not measured on a card yet

Every figure carries its convention: model FLOPs a second by `matmul` and `matmul_causal` over a
peak of 989 TFLOP/s (H100, H200; dense bf16). One JSON object a line on stdout; the last proposes
rows of the implementation table in launch/devices/choice.py. --scale=toy runs anywhere.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import sys
import time
import unittest.mock

import jax

from experiments.benchmarks import mixers_on_card, optimizers, packs, steps, trunks
from launch.config import Run
from launch.runs import generate
from model import account, step
from model.config import Execution
from model.lm import LM
from model.sample import Sampling

BUDGET_S = 400  # no new figure is started after so many seconds

# the first three have a bar to reach; the second is nanochat's of 20 layers, the third
# llm-foundry's (shared notes)
DENSE = {
    "124M": steps.Shape(1024, 768, 12, 12, 64),
    "561M": steps.Shape(2048, 1280, 20, 10, 16, 65_536, False),
    "1.3B": steps.Shape(2048, 2048, 24, 16, 16),
    "12M": steps.Shape(1024, 384, 6, 6, 128),
    "50M": steps.Shape(1024, 512, 16, 8, 64),
    "350M": steps.Shape(1024, 1024, 24, 16, 32),
}
UPDATES = 20  # of a call, as isoflop does with small models, beside one
AT_A_TIME = 3  # models whose programs are compiled beside each other, before any of them is timed
TOY = {"toy": steps.Shape(32, 32, 2, 2, 4, 320)}
MEMBERS = {
    "1M": steps.Shape(128, 128, 5, 4, 4, 320),
    "4M": steps.Shape(256, 256, 5, 4, 4, 320),
    "10M": steps.Shape(256, 384, 6, 6, 4, 320),
}


def _is_gpu() -> bool:
    return jax.default_backend() == "gpu"


def _attentions() -> tuple[str, ...]:
    return ("cudnn", "xla") if _is_gpu() else ("xla",)


def dense(toy: bool, say) -> dict:
    dtype = "float32" if toy else "bfloat16"
    small = steps.model(TOY["toy"] if toy else steps.Shape(128, 256, 2, 4, 4, 320))
    checked = {how: Execution(dtype=dtype, attention=how) for how in _attentions()}
    checked |= {
        "chunks": Execution(dtype=dtype, attention_chunk=small.seq_len // 4),
        "scan": Execution(dtype=dtype, scan=True),
    }
    checked |= {"float32": Execution()}
    say({"numerics": steps.differences(small, checked)})
    shapes, best = list((TOY if toy else DENSE).items()), {}
    for i in range(0, len(shapes), AT_A_TIME):
        cases = {}
        for name, s in shapes[i : i + AT_A_TIME]:
            for how in _attentions():
                for scan in (False, True):
                    if (
                        scan and how == "xla" and _is_gpu()
                    ):  # two figures tell the kernels apart, two the layouts of layers
                        continue
                    c = steps.model(s)
                    ex = steps.by_auto(c, s.batch, dtype, attention=how, scan=scan)
                    cases[name, f"{how}{' scan' * scan}"] = steps.Case(c, ex, s.batch)
        if say.late():
            break
        timed = steps.times(cases, say)
        for name, s in shapes[i : i + AT_A_TIME]:
            rows = steps.found({how: got for (of, how), got in timed.items() if of == name})
            say(
                {
                    "dense": name,
                    "parameters": account.parameters(steps.model(s))["total"],
                    "context": s.context,
                    "found": rows,
                }
            )
            best[name] = steps.fastest(rows)
    return {"attention": best}


@contextlib.contextmanager
def ragged_by_triton():
    """jax's own kernel for ragged_dot, which is off by default."""
    flag = "jax_ragged_dot_use_gpu_pallas_triton_lowering"
    jax.config.update(flag, True)
    try:
        yield
    finally:
        jax.config.update(flag, False)


@contextlib.contextmanager
def ragged_by_tokamax():
    import tokamax

    with unittest.mock.patch.object(jax.lax, "ragged_dot", tokamax.ragged_dot):
        yield


def moe(toy: bool, say) -> dict:
    dtype, s = ("float32", TOY["toy"]) if toy else ("bfloat16", DENSE["124M"])
    gated = "activation=swiglu,"
    c = steps.model(s, f"dense({gated})")
    sparse = steps.model(s, f"moe({gated})")
    small = steps.model(steps.Shape(16, 32, 1, 2, 2, 320), f"moe({gated})")
    ways = {
        "block": Execution(dtype=dtype, moe="block", moe_rows=8),
        "ragged": Execution(dtype=dtype, moe="ragged"),
    }
    say({"numerics": steps.differences(small, ways)})
    auto = functools.partial(steps.by_auto, sparse, s.batch, dtype)
    bounded = steps.model(s, f"moe({gated}capacity_factor=1.25)")
    cases = {
        "dense": steps.Case(c, steps.by_auto(c, s.batch, dtype), s.batch),
        "block": steps.Case(sparse, auto(moe="block"), s.batch),
        "block, half the rows": steps.Case(
            sparse, auto(moe="block", moe_rows=max(1, auto().moe_rows // 2)), s.batch
        ),
        "capacity": steps.Case(bounded, steps.by_auto(bounded, s.batch, dtype), s.batch),
        "ragged": steps.Case(
            sparse, auto(moe="ragged"), s.batch if toy else s.batch // 4
        ),  # XLA makes every expert's rows of it
    }
    if _is_gpu():
        cases["ragged by triton"] = steps.Case(
            sparse, auto(moe="ragged"), s.batch, 0, ragged_by_triton
        )
        if importlib.util.find_spec("tokamax"):
            cases["ragged by tokamax"] = steps.Case(
                sparse, auto(moe="ragged"), s.batch, 0, ragged_by_tokamax
            )
    rows = steps.found(steps.times(cases, say))
    for name, row in rows.items():
        if isinstance(row, dict) and isinstance(rows["dense"], dict):
            row["over_dense"] = row["tokens_per_s"] / rows["dense"]["tokens_per_s"]
        say({"moe": name, "found": row})
    best = steps.fastest(
        {name: row for name, row in rows.items() if name not in ("dense", "capacity")}
    )
    return {"moe": best} if best else {}


def _members(c, dtype: str, batch: int, several, updates: int, say) -> tuple[dict, dict]:
    """Seconds of an update of one model, each way; and of so many models mapped through it, with
    how many such models that is worth.
    """

    def case(k, how, scan):
        return steps.Case(
            c, Execution(dtype=dtype, attention=how, scan=scan), batch, k, updates=updates
        )

    keys = [(0, how, scan) for how in _attentions() for scan in (False, True)] + [
        (k, how, False) for k in several for how in _attentions()
    ]
    timed = steps.times({key: case(*key) for key in keys}, say)

    def of(k):
        return {f"{how}{' scan' * scan}": got for (n, how, scan), got in timed.items() if n == k}

    alone = {how: got if isinstance(got, str) else got[1] for how, got in of(0).items()}
    least = min((s for s in alone.values() if not isinstance(s, str)), default=math.nan)

    def tell(k, got):
        return (
            got
            if isinstance(got, str)
            else {"step_s": got[1], "members_per_single": k * least / got[1]}
        )

    return alone, {k: {how: tell(k, got) for how, got in of(k).items()} for k in several}


def members(toy: bool, say) -> dict:
    best = {}
    for name, s in (TOY if toy else MEMBERS).items():
        for updates in (1, UPDATES):
            if say.late():
                break
            c = steps.model(s)
            alone, rows = _members(
                c,
                "float32" if toy else "bfloat16",
                s.batch,
                (1, 4) if toy else (1, 4, 16, 64),
                updates,
                say,
            )
            about = {"parameters": account.parameters(c)["total"], "updates_per_call": updates}
            say({"members": name, **about, "single_step_s": alone, "found": rows})

            def gain(by):
                return max(
                    (row["members_per_single"] for row in by.values() if isinstance(row, dict)),
                    default=0,
                )

            best[f"{name}, {updates} a call"] = {k: gain(by) for k, by in rows.items()}
    return {"members_per_single": best}


def decode(toy: bool, say) -> dict:
    shapes = TOY if toy else {k: DENSE[k] for k in ("124M", "1.3B")}
    for name, s in shapes.items():
        c = steps.model(s)
        run = Run(model=c, dtype="float32" if toy else "bfloat16")
        held = step.variables(steps.fresh(LM(c)))
        for rows in (2,) if toy else (1, 32):
            if say.late():
                break
            prompts = list(steps.batch_of(c, rows)[:, : c.seq_len // 2])
            session = generate.Session(run, held, prompts, 4 if toy else 128, Sampling(0.0))
            session.generate()
            out = session.generate()
            speeds = {
                "prefill_tokens_per_s": out.prompt_tokens / out.prefill_s,
                "decode_tokens_per_s": out.tokens.size / out.decode_s,
            }
            say({"decode": name, "rows": rows, **speeds})
    return {}


def trunked(toy: bool, say) -> dict:
    s = TOY["toy"] if toy else DENSE["12M"]
    dtype = "float32" if toy else "bfloat16"
    return trunks.compare(steps.model(s), s.batch, toy, dtype, say)


def optimizing(toy: bool, say) -> dict:
    shapes = TOY if toy else {k: DENSE[k] for k in ("124M", "350M")}
    optimizers.on_card(shapes, "float32" if toy else "bfloat16", say)
    return {}


PARTS = {
    "dense": dense,
    "moe": moe,
    "members": members,
    "packs": packs.part,
    "decode": decode,
    "trunks": trunked,
    "optimizers": optimizing,
    "mixers": mixers_on_card.part,
}


class Say:
    """One JSON object a line; `late` once the time for new figures is over."""

    def __init__(self):
        self._started = time.perf_counter()

    def late(self) -> bool:
        return time.perf_counter() - self._started > BUDGET_S

    def __call__(self, answer: dict) -> None:
        print(
            json.dumps({**answer, "s": round(time.perf_counter() - self._started, 1)}), flush=True
        )


def main(argv=None) -> int:
    p = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--part", choices=PARTS, required=True)
    p.add_argument("--scale", choices=("full", "toy"), default="full")
    a = p.parse_args(argv)
    if a.scale == "full" and jax.default_backend() == "cpu":
        print(
            "isoflop: jax sees no accelerator here, and models of up to 1.3B parameters want one:"
            " --scale=toy runs on a CPU",
            file=sys.stderr,
        )
        return 2
    say, device = Say(), jax.devices()[0].device_kind
    say(
        {
            "part": a.part,
            "device": device,
            "jax": jax.__version__,
            "peak": steps.PEAK,
            "date": time.strftime("%Y-%m-%d"),
        }
    )
    say({"proposed": PARTS[a.part](a.scale == "toy", say)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
