"""Steps of training that are timed on this device, many programs compiled beside each other first
(gpu.py).
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from launch.config import Where
from launch.devices import choice
from model import account, params, parts, step
from model.config import Execution, Model
from model.lm import LM, abstract
from model.optimizers import AdamW, Optimizer

PEAK = 989e12
HYPER = {"lr": 3e-4, "embed_lr": 3e-4, "head_lr": 3e-4, "weight_decay": 0.1}
STEPS, ROUND_S = (
    5,
    0.3,
    # a time is that of so many calls or seconds at least, one after the other without waiting, as
    # in training
)


class Shape(NamedTuple):
    context: int
    width: int
    layers: int
    heads: int
    batch: int  # the largest that is tried
    vocab: int = 50_304
    tied: bool = True


def model(s: Shape, mlp: str = "dense") -> Model:
    return parts.model(
        f"attention(n_heads={s.heads})/{mlp}",
        vocab_size=s.vocab,
        seq_len=s.context,
        d_model=s.width,
        n_layers=s.layers,
        tied=s.tied,
    )


class Case(NamedTuple):
    """A step that is timed: of one model on `batch` sequences, or of `members` models mapped
    through it, `updates` of them a call. lowering: what its experts' products become.
    """

    c: Model
    ex: Execution
    batch: int
    members: int = 0
    lowering: Callable = contextlib.nullcontext
    updates: int = 1
    optimizer: Optimizer = AdamW()

    @property
    def lm(self) -> LM:
        return LM(self.c, self.ex)

    @property
    def tokens(self):
        lead = (self.members, self.batch) if self.members else (self.batch,)
        return batch_of(self.c, *((self.updates, *lead) if self.updates > 1 else lead))


def by_auto(c: Model, batch: int, dtype: str, scan: bool = False, **change) -> Execution:
    """What isoflop chooses here, but for `change`."""
    return dataclasses.replace(
        choice.execution(c, Where(scan=scan), dtype, jax.default_backend(), 1, batch * c.seq_len),
        accumulate=1,
        **change,
    )


def batch_of(c: Model, *lead: int):
    return (
        np.random.default_rng(0).integers(0, c.vocab_size, (*lead, c.seq_len + 1)).astype(np.int32)
    )


def fresh(lm: LM, members: int = 0, optimizer: Optimizer = AdamW()):
    """A state at its initial spread, drawn on the device; with `members`, of so many models."""
    boxes, structure = jax.tree.flatten(abstract(lm.m, lm.ex), is_leaf=params.is_parameter)
    lead = (members,) if members else ()

    def draw(i, box):
        shape = (*lead, *box.value.shape)
        if box.start:
            return jnp.asarray(box.start(np.random.default_rng(i), shape), jnp.float32)
        return box.mean + box.std * jax.random.normal(jax.random.key(i), shape)

    made = functools.partial(step.create, lm, optimizer)
    return (jax.vmap(made) if members else made)(
        structure.unflatten([draw(i, box) for i, box in enumerate(boxes)])
    )


def lowered(case: Case):
    def one(s, t):
        return step.train_step(case.lm, case.optimizer, s, t, HYPER)

    many = jax.vmap(one) if case.members else one
    call = many if case.updates == 1 else lambda s, t: jax.lax.scan(many, s, t)
    state = jax.eval_shape(lambda: fresh(case.lm, case.members, case.optimizer))
    with case.lowering():
        return jax.jit(call, donate_argnums=0).lower(state, case.tokens)


def seconds(program, case: Case, repeats: int = 3) -> float:
    """Of one update of the compiled program: the median over `repeats` rounds, after two calls that
    settle and a few that say how long one is.
    """
    state, tokens = fresh(case.lm, case.members, case.optimizer), jax.device_put(case.tokens)
    calls, out = 2, []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        for _ in range(calls):
            state, metrics = program(state, tokens)
        jax.block_until_ready(metrics)
        out.append((time.perf_counter() - started) / calls)
        calls = STEPS if len(out) == 1 else max(STEPS, int(ROUND_S / out[1]))
    return float(np.median(out[2:])) / case.updates


def _no_room(e: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(e) or "ut of memory" in str(e)


def _words(e: Exception) -> str:
    return f"{type(e).__name__}: {(str(e).splitlines() or [''])[0][:160]}"


def times(cases: dict[str, Case], say) -> dict[str, tuple[Case, float] | str]:
    """Of every case (itself, at the largest batch out of its own, half of it, ... that fits;
    seconds of a step), or in words what went wrong. All programs are compiled beside each other
    first.
    """
    compiled = functools.partial(choice.compiled, platform=jax.default_backend())
    out = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {}
        for name, case in cases.items():
            try:
                waiting[name] = pool.submit(compiled, lowered(case))
            except Exception as e:  # what a kernel says when it cannot run here is a finding
                out[name] = _words(e)
        concurrent.futures.wait(waiting.values())
    for name, program in waiting.items():
        case = cases[name]
        while name not in out:
            try:
                out[name] = (
                    case,
                    seconds(
                        program.result() if case is cases[name] else compiled(lowered(case)), case
                    ),
                )
            except (
                Exception
            ) as e:  # the runtime raises one type for memory and for kernels that refuse a shape
                case = case._replace(batch=case.batch // 2)
                if not _no_room(e) or not case.batch or say.late():
                    out[name] = _words(e)
    return out


def rates(case: Case, s: float) -> dict:
    per_s = case.batch * case.c.seq_len / s
    flops = account.flops_per_token(case.c)
    return {"batch": case.batch, "step_s": s, "tokens_per_s": per_s} | {
        f"mfu_{k}": flops[k] * per_s / PEAK for k in ("matmul", "matmul_causal")
    }


def found(timed: dict) -> dict:
    return {name: got if isinstance(got, str) else rates(*got) for name, got in timed.items()}


def fastest(rows: dict) -> str | None:
    timed = {name: row for name, row in rows.items() if isinstance(row, dict)}
    return max(timed, key=lambda name: timed[name]["tokens_per_s"]) if timed else None


def differences(c: Model, executions: dict[str, Execution]) -> dict:
    """Of every execution on this device against float32 on a CPU: relative difference of the loss,
    and the largest of a leaf's gradient.
    """
    state, tokens = jax.tree.map(np.asarray, fresh(LM(c))), batch_of(c, 2)

    def passes(ex, device):
        with jax.default_device(device):
            held = params.scanned(state.params) if ex.scan else state.params
            g, (metrics, _) = jax.jit(functools.partial(step.gradients, LM(c, ex)))(
                state._replace(params=held), tokens
            )
            return float(metrics["loss"]), params.unrolled(jax.tree.map(np.asarray, g))

    loss, gradient = passes(Execution(), jax.devices("cpu")[0])
    out = {}
    for name, ex in executions.items():
        try:
            got, g = passes(ex, jax.devices()[0])
        except Exception as e:
            out[name] = _words(e)
            continue
        share = jax.tree.map(
            lambda a, b: float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12)), g, gradient
        )
        out[name] = {"loss": abs(got / loss - 1), "gradient": max(jax.tree.leaves(share))}
    return out
