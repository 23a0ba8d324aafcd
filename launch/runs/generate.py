"""Trained runs from their folders, and text from them."""

import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from data import tokenizers
from launch import config, files
from launch.config import ConfigError, Run
from launch.devices import choice, environment_check
from launch.files import RecordError
from launch.runs import checkpoint, record
from model import params, sample, step
from model.config import Execution
from model.lm import LM, abstract


class Saved(NamedTuple):
    """A run and its newest whole state: {"params", "buffers"} of numpy arrays, layers unrolled."""

    run: Run
    variables: dict
    step: int


def load(folder: str, say: Callable[[str], None] = print) -> Saved:
    """Reads a run's folder and changes nothing in it. Raises RecordError, and ConfigError where jax
    cannot start.
    """
    run, number = described(folder, say)
    return read(folder, run, number)


def described(folder: str, say: Callable[[str], None] = print) -> tuple[Run, int]:
    """A run and the step of its newest whole state, which is not read. Raises as `load` does."""
    environment_check.check()
    path = os.path.join(folder, record.RUN)
    if not os.path.isfile(path):
        raise RecordError(
            f"{folder} holds no run ({record.RUN} is missing): name the --workdir of isoflop train,"
            " or one run of a sweep, SWEEP/runs/ID"
        )
    found = files.read_json(path, "run")
    try:
        run = config.from_dict(Run, found["run"])
        config.check(run)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise RecordError(f"{path} is damaged ({type(e).__name__}: {e})") from None
    number = checkpoint.newest(folder, found.get("id"), None, say, mend=False)
    if number is None:
        raise RecordError(
            f"{folder} holds no checkpoint: train it with --set where.keep_final=true, or --set"
            " where.checkpoint_every=N"
        )
    return run, number


def read(folder: str, run: Run, number: int) -> Saved:
    """The state of a run at a step. Raises RecordError."""

    def like(scan):
        ex = Execution(scan=scan)
        return jax.eval_shape(
            lambda p: step.create(LM(run.model, ex), run.optimizer, p, bool(run.average)),
            _arrays(abstract(run.model, ex)),
        )

    state, _ = checkpoint.peek(folder, number, like)
    return Saved(
        run,
        {"params": params.unrolled(state.params), "buffers": params.unrolled(state.buffers)},
        number,
    )


def _arrays(boxed):
    return jax.tree.map(lambda b: b.value, boxed, is_leaf=lambda b: hasattr(b, "value"))


class Generation(NamedTuple):
    """tokens: ids of every row's continuation. Seconds without compilation; cpu_s: of decoding, on
    all cores.
    """

    tokens: np.ndarray
    prompt_tokens: int
    prefill_s: float
    decode_s: float
    cpu_s: float
    compile_s: float


class Session:
    """Programs that put `count` tokens after prompts of the given lengths, compiled once. Raises
    ConfigError where learned positions end.
    """

    def __init__(
        self, run: Run, variables, prompts: list[np.ndarray], count: int, how: sample.Sampling
    ):
        longest, c = max(len(p) for p in prompts), run.model
        slots = longest + count
        if c.positions.bounded and slots > c.seq_len:
            raise ConfigError(
                f"{longest} prompt tokens and {count} more are {slots}, beyond the {c.seq_len}"
                " learned positions: shorten the prompt, or lower --tokens"
            )
        ex = Execution(
            dtype=run.dtype if run.dtype != "auto" else choice.choice(jax.default_backend()).dtype
        )
        lm, self._how, self._given = LM(c, ex), how, sum(map(len, prompts))
        self._pad_B = np.array([longest - len(p) for p in prompts], np.int32)
        self._tokens_BT = np.stack(
            [np.concatenate([np.zeros(n, np.int32), p]) for n, p in zip(self._pad_B, prompts)]
        ).astype(np.int32)
        # cast once: XLA else casts all weights again for every token
        cast = jax.jit(functools.partial(params.at_use, dtype=ex.dtype))
        self._held, self._slot = (
            {**jax.device_put(variables), "params": cast(jax.device_put(variables["params"]))},
            np.int32(longest),
        )
        started = time.perf_counter()
        prefill = functools.partial(sample.prefill, lm, slots=slots)
        inputs = self._held, self._tokens_BT, self._pad_B
        self._prefill = jax.jit(prefill).lower(*inputs).compile()
        _, cache = jax.eval_shape(prefill, *inputs)
        first = jax.ShapeDtypeStruct(self._pad_B.shape, np.int32)
        extend = jax.jit(functools.partial(sample.extend, lm, slots=slots, count=count, how=how))
        self._extend = extend.lower(
            self._held, first, self._pad_B, slot=self._slot, cache=cache, key=jax.random.key(0)
        ).compile()
        self._compile_s = time.perf_counter() - started

    def generate(self, seed: int = 0) -> Generation:
        key, started = jax.random.key(seed), time.perf_counter()
        logits_BTV, cache = jax.block_until_ready(
            self._prefill(self._held, self._tokens_BT, self._pad_B)
        )
        filled, cpu = time.perf_counter(), time.process_time()
        first_B = sample.choose(logits_BTV[:, -1], jax.random.fold_in(key, 2**31 - 1), self._how)
        out = np.asarray(
            self._extend(self._held, first_B, self._pad_B, slot=self._slot, cache=cache, key=key)
        )
        decode_s, cpu_s = time.perf_counter() - filled, time.process_time() - cpu
        return Generation(out, self._given, filled - started, decode_s, cpu_s, self._compile_s)


def generate(
    run: Run, variables, prompts: list[np.ndarray], count: int, how: sample.Sampling, seed: int = 0
) -> Generation:
    """`count` tokens after each prompt (int arrays of any lengths, at least one token). Raises
    ConfigError where learned positions end.
    """
    return Session(run, variables, prompts, count, how).generate(seed)


def tokenizer(run: Run):
    """The tokenizer of a run's text. Raises ConfigError for a source that is no text."""
    if run.data.source == "synthetic":
        raise ConfigError("the run was trained on the synthetic source, whose tokens are no text")
    return tokenizers.load(run.data)
