"""What a card does: numerics against the CPU first, then times. Each part takes less than eight minutes on one H200-class card.

python -m experiments.benchmarks.gpu --part=dense|moe|members|decode [--scale=toy]

dense     12M to 1.3B parameters at context 1024 or 2048: attention by XLA and by cuDNN, layers scanned and unrolled, the largest batch that fits
moe       a mixture of equal active parameters, in every implementation of the experts, over the dense model
members   K models mapped through one step, over the fastest step of one model at the same tokens each
decode    prefill and decode

Every figure carries its convention: model FLOPs a second by `matmul` and `matmul_causal` over a peak of 989 TFLOP/s (H100, H200; dense bf16).
One JSON object a line on stdout; the last proposes rows of the implementation table in launch/hardware.py. --scale=toy runs anywhere.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import sys
import time
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np

from launch import generate
from launch.config import Run
from model import account, optim, params, step
from model.config import Execution, Model
from model.lm import LM, abstract
from model.sample import Sampling

PEAK = 989e12
OPTIMIZER = optim.Optimizer()
HYPER = {"lr": 3e-4, "embed_lr": 3e-4, "weight_decay": 0.1}
BUDGET_S = 400  # no new figure is started after so many seconds

# name: (context, d_model, layers, heads, largest batch that is tried); 50,304 ids, GPT-2's ratio of widths
DENSE = {
    "12M": (1024, 384, 6, 6, 128),
    "50M": (1024, 512, 16, 8, 64),
    "124M": (1024, 768, 12, 12, 64),
    "350M": (1024, 1024, 24, 16, 32),
    "1.3B": (2048, 2048, 24, 16, 8),
}
TOY = {"toy": (32, 32, 2, 2, 4)}
MEMBERS = {"1M": (128, 128, 5, 4, 4), "10M": (256, 384, 6, 6, 4)}


def model(shape, vocab: int, **change) -> Model:
    context, width, layers, heads, _ = shape
    c = Model(vocab_size=vocab, seq_len=context, d_model=width, n_layers=layers, n_heads=heads, d_ff=4 * width, tied=True)
    return dataclasses.replace(c, **change)


def _tokens(c: Model, *lead: int):
    return np.random.default_rng(0).integers(0, c.vocab_size, (*lead, c.seq_len + 1)).astype(np.int32)


def _state(lm: LM, seed: int = 0):
    return step.create(lm, OPTIMIZER, jax.tree.map(jnp.asarray, params.initial(abstract(lm.c, lm.ex), seed)))


def seconds(f, state, tokens, repeats: int) -> float:
    """Of one call of the donated step `f`: the median over `repeats`, after two that compile and settle."""
    out = []
    for i in range(repeats + 2):
        started = time.perf_counter()
        state, metrics = f(state, tokens)
        jax.block_until_ready(metrics)
        if i >= 2:
            out.append(time.perf_counter() - started)
    return float(np.median(out))


def train_seconds(c: Model, ex: Execution, batch: int, repeats: int = 10) -> float:
    lm = LM(c, ex)
    f = jax.jit(lambda s, t: step.train_step(lm, OPTIMIZER, s, t, HYPER), donate_argnums=0)
    return seconds(f, _state(lm), _tokens(c, batch), repeats)


def largest(c: Model, ex: Execution, batch: int) -> tuple[int, float] | str:
    """(batch, seconds) of the largest batch out of `batch`, batch / 2, ... that fits; what went wrong in words if none does."""
    while batch:
        try:
            return batch, train_seconds(c, ex, batch)
        except Exception as e:  # the runtime raises one type for memory and for kernels that refuse a shape
            if "RESOURCE_EXHAUSTED" not in str(e) and "ut of memory" not in str(e):
                return f"{type(e).__name__}: {str(e).splitlines()[0][:160]}"
            batch //= 2
    return "no batch fits"


def rates(c: Model, batch: int, s: float) -> dict:
    per_s = batch * c.seq_len / s
    flops = account.flops_per_token(c)
    return {"batch": batch, "step_s": s, "tokens_per_s": per_s} | {f"mfu_{k}": flops[k] * per_s / PEAK for k in ("matmul", "matmul_causal")}


def differences(c: Model, executions: dict[str, Execution]) -> dict:
    """Of every execution on this device against float32 on a CPU: relative difference of the loss, and the largest of a leaf's gradient."""
    state, tokens = jax.tree.map(np.asarray, _state(LM(c))), _tokens(c, 2)

    def passes(ex, device):
        with jax.default_device(device):
            held = params.scanned(state.params) if ex.scan else state.params
            g, (metrics, _) = jax.jit(functools.partial(step.gradients, LM(c, ex)))(state._replace(params=held), tokens)
            return float(metrics["loss"]), params.unrolled(jax.tree.map(np.asarray, g))

    loss, gradient = passes(Execution(), jax.devices("cpu")[0])
    out = {}
    for name, ex in executions.items():
        try:
            got, g = passes(ex, jax.devices()[0])
        except Exception as e:  # what a kernel says when it cannot run here is a finding
            out[name] = f"{type(e).__name__}: {str(e).splitlines()[0][:160]}"
            continue
        share = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12)), g, gradient)
        out[name] = {"loss": abs(got / loss - 1), "gradient": max(jax.tree.leaves(share))}
    return out


def _is_gpu() -> bool:
    return jax.default_backend() == "gpu"


def attentions(dtype: str, context: int) -> dict[str, Execution]:
    out = {"xla": Execution(dtype=dtype)}
    out["chunks"] = Execution(dtype=dtype, attention_chunk=context // 4)
    return out | ({"cudnn": Execution(dtype=dtype, attention="cudnn")} if _is_gpu() else {})


def dense(toy: bool, say) -> dict:
    vocab, dtype = (320, "float32") if toy else (50_304, "bfloat16")
    c = model(next(iter(TOY.values())) if toy else (128, 256, 2, 4, 4), 320)
    say({"numerics": differences(c, attentions(dtype, c.seq_len) | {"scan": Execution(dtype=dtype, scan=True)})})
    best = {}
    for name, shape in (TOY if toy else DENSE).items():
        c, found = model(shape, vocab), {}
        chunk = 0 if toy else c.seq_len // 8
        for how, ex in attentions(dtype, c.seq_len).items():
            for scan in (False, True):
                if say.late():
                    continue
                ex = dataclasses.replace(ex, scan=scan, remat=shape[1] >= 1024 and scan, loss_chunk=chunk)
                got = largest(c, ex, shape[4])
                found[f"{how}{' scan' * scan}"] = got if isinstance(got, str) else rates(c, *got)
        say({"dense": name, "parameters": account.parameters(c)["total"], "context": c.seq_len, "found": found})
        timed = {k: v for k, v in found.items() if isinstance(v, dict)}
        if timed:
            best[name] = max(timed, key=lambda k: timed[k]["tokens_per_s"])
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
    vocab, dtype, shape = (320, "float32", TOY["toy"]) if toy else (50_304, "bfloat16", DENSE["124M"])
    batch = shape[4] if toy else 16
    c = model(shape, vocab, activation="swiglu")
    sparse = dataclasses.replace(c, pattern=("attention/moe",))
    ways = {"block": Execution(moe="block", moe_rows=8 if toy else 256), "ragged": Execution(moe="ragged")}
    small = model((16, 32, 1, 2, 2), 320, activation="swiglu", pattern=("attention/moe",))
    say({"numerics": differences(small, {k: dataclasses.replace(ex, dtype=dtype) for k, ex in ways.items()})})
    base = largest(c, Execution(dtype=dtype), batch)
    if isinstance(base, str):
        say({"moe": "dense", "found": base})
        return {}
    say({"moe": "dense", "found": rates(c, *base)})
    plain = contextlib.nullcontext
    runs = [(name, sparse, ex, plain) for name, ex in ways.items()]
    runs.append(("capacity", dataclasses.replace(sparse, capacity_factor=1.25), Execution(moe="capacity"), plain))
    if _is_gpu():
        runs.append(("ragged by triton", sparse, ways["ragged"], ragged_by_triton))
        runs += [("ragged by tokamax", sparse, ways["ragged"], ragged_by_tokamax)] if importlib.util.find_spec("tokamax") else []
    found = {}
    for name, m, ex, lowering in runs:
        if say.late():
            break
        with lowering():
            got = largest(m, dataclasses.replace(ex, dtype=dtype), base[0])
        found[name] = got if isinstance(got, str) else rates(m, *got) | {"over_dense": got[0] / got[1] * base[1] / base[0]}
        say({"moe": name, "found": found[name]})
    timed = {k: v for k, v in found.items() if isinstance(v, dict) and k != "capacity"}
    return {"moe": max(timed, key=lambda k: timed[k]["tokens_per_s"])} if timed else {}


def members(toy: bool, say) -> dict:
    found = {}
    for name, shape in (TOY if toy else MEMBERS).items():
        c, batch = model(shape, 320), shape[4]
        ex = Execution(dtype="float32" if toy else "bfloat16")
        lm = LM(c, ex)
        one = functools.partial(step.train_step, lm, OPTIMIZER)
        single = min(train_seconds(c, dataclasses.replace(ex, scan=scan), batch) for scan in (False, True))
        rows = {}
        for k in (1, 4) if toy else (1, 4, 16, 64):
            if say.late():
                break
            state = jax.tree.map(lambda *a: jnp.stack(a), *[_state(lm, seed) for seed in range(k)])
            many = jax.jit(jax.vmap(lambda s, t: one(s, t, HYPER)), donate_argnums=0)
            s = seconds(many, state, _tokens(c, k, batch), 10)
            rows[k] = {"step_s": s, "members_per_single": k * single / s}
        found[name] = rows
        say({"members": name, "parameters": account.parameters(c)["total"], "single_step_s": single, "found": rows})
    return {"members": {n: max(r, key=lambda k: r[k]["members_per_single"]) for n, r in found.items() if r}}


def decode(toy: bool, say) -> dict:
    shapes = TOY if toy else {k: DENSE[k] for k in ("124M", "1.3B")}
    for name, shape in shapes.items():
        c = model(shape, 320 if toy else 50_304)
        run = Run(model=c, dtype="float32" if toy else "bfloat16")
        held = {"params": params.initial(abstract(c), 0), "buffers": {}}
        for rows in (2,) if toy else (1, 32):
            prompts = list(_tokens(c, rows)[:, : c.seq_len // 2])
            session = generate.Session(run, held, prompts, 4 if toy else 128, Sampling(0.0))
            session.generate()
            out = session.generate()
            speeds = {"prefill_tokens_per_s": out.prompt_tokens / out.prefill_s, "decode_tokens_per_s": out.tokens.size / out.decode_s}
            say({"decode": name, "rows": rows, **speeds})
    return {}


PARTS = {"dense": dense, "moe": moe, "members": members, "decode": decode}


class Say:
    """One JSON object a line; `late` once the time for new figures is over."""

    def __init__(self):
        self._started = time.perf_counter()

    def late(self) -> bool:
        return time.perf_counter() - self._started > BUDGET_S

    def __call__(self, answer: dict) -> None:
        print(json.dumps(answer), flush=True)


def main(argv=None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--part", choices=PARTS, required=True)
    p.add_argument("--scale", choices=("full", "toy"), default="full")
    a = p.parse_args(argv)
    say = Say()
    say({"part": a.part, "device": jax.devices()[0].device_kind, "jax": jax.__version__, "peak": PEAK, "date": time.strftime("%Y-%m-%d")})
    say({"proposed": PARTS[a.part](a.scale == "toy", say)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
