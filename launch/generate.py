"""Trained runs from their folders, and text from them."""

import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from data import tokenizers
from launch import checkpoint, config, hardware, record
from launch.config import ConfigError, Run
from launch.record import RecordError
from model import params, sample, step
from model.config import Execution
from model.lm import LM, abstract


class Saved(NamedTuple):
    """A run and its newest whole state: {"params", "buffers"} of numpy arrays, layers unrolled."""

    run: Run
    variables: dict
    step: int


def load(folder: str, say: Callable[[str], None] = print) -> Saved:
    """Reads a run's folder and changes nothing in it. Raises RecordError."""
    path = os.path.join(folder, record.RUN)
    if not os.path.isfile(path):
        raise RecordError(f"{folder} holds no run ({record.RUN} is missing): name the --workdir of isoflop train")
    found = record.read_json(path, "run")
    try:
        run = config.from_dict(Run, found["run"])
        config.check(run)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise RecordError(f"{path} is damaged ({type(e).__name__}: {e})") from None
    number = checkpoint.newest(folder, found.get("id"), None, say, mend=False)
    if number is None:
        raise RecordError(f"{folder} holds no checkpoint: train it with --set where.keep_final=true, or --set where.checkpoint_every=N")

    def like(scan):
        ex = Execution(scan=scan)
        return jax.eval_shape(lambda p: step.create(LM(run.model, ex), run.optimizer, p), _arrays(abstract(run.model, ex)))

    state, _ = checkpoint.peek(folder, number, like)
    return Saved(run, {"params": params.unrolled(state.params), "buffers": params.unrolled(state.buffers)}, number)


def _arrays(boxed):
    return jax.tree.map(lambda b: b.value, boxed, is_leaf=lambda b: hasattr(b, "value"))


class Generation(NamedTuple):
    """tokens: ids of every row's continuation. Seconds without compilation."""

    tokens: np.ndarray
    prompt_tokens: int
    prefill_s: float
    decode_s: float
    compile_s: float


def generate(run: Run, variables, prompts: list[np.ndarray], count: int, how: sample.Sampling, seed: int = 0) -> Generation:
    """`count` tokens after each prompt (int arrays of any lengths, at least one token). Raises ConfigError where learned positions end."""
    longest, c = max(len(p) for p in prompts), run.model
    slots = longest + count
    if c.positions == "learned" and slots > c.seq_len:
        raise ConfigError(
            f"{longest} prompt tokens and {count} more are {slots}, beyond the {c.seq_len} learned positions: shorten the prompt, or lower --tokens"
        )
    ex = Execution(dtype=run.dtype if run.dtype != "auto" else hardware.choice(jax.default_backend()).dtype)
    lm = LM(c, ex)
    pad_B = np.array([longest - len(p) for p in prompts], np.int32)
    tokens_BT = np.stack([np.concatenate([np.zeros(n, np.int32), p]) for n, p in zip(pad_B, prompts)]).astype(np.int32)
    held = jax.device_put(variables)
    started = time.perf_counter()
    prefill = jax.jit(functools.partial(sample.prefill, lm, slots=slots)).lower(held, tokens_BT, pad_B).compile()
    extend = jax.jit(functools.partial(sample.extend, lm, slots=slots, count=count, how=how))
    key = jax.random.key(seed)
    _, cache = jax.eval_shape(functools.partial(sample.prefill, lm, slots=slots), held, tokens_BT, pad_B)
    first = jax.ShapeDtypeStruct(pad_B.shape, np.int32)
    extend = extend.lower(held, first, pad_B, slot=np.int32(longest), cache=cache, key=key).compile()
    compiled = time.perf_counter()
    logits_BTV, cache = jax.block_until_ready(prefill(held, tokens_BT, pad_B))
    filled = time.perf_counter()
    first_B = sample.choose(logits_BTV[:, -1], jax.random.fold_in(key, 2**31 - 1), how)
    out = np.asarray(extend(held, first_B, pad_B, slot=np.int32(longest), cache=cache, key=key))
    return Generation(out, int(sum(map(len, prompts))), filled - compiled, time.perf_counter() - filled, compiled - started)


def tokenizer(run: Run):
    """The tokenizer of a run's text. Raises ConfigError for a source that is no text."""
    if run.data.source == "synthetic":
        raise ConfigError("the run was trained on the synthetic source, whose tokens are no text")
    return tokenizers.load(run.data)
