"""The compiled step and evaluation of a run. One `Program` serves every run of equal shape in a
process: learning rate, decay, seed and number of steps are its inputs.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from data import pipeline
from launch import config
from launch.config import Run, Where
from launch.devices import choice, members, packs
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from launch.devices.layout import Layout
from launch.runs import checks
from model import averages
from model.config import Execution
from model.context import Separator


class Program(NamedTuple):
    """Compiled functions for one shape, and how their arguments are laid out."""

    layout: Layout
    train: Callable
    evaluate: Callable  # the program that evaluates so many sequences
    dispatch: int
    eval_batch: int  # sequences that are evaluated at a time, multiples of eval_unit
    eval_unit: int
    compile_s: float


class Pack(NamedTuple):
    """A Program that trains several runs of equal shape, `members` at once: what it takes and gives
    has a leading axis of them (launch/devices/packs.py), but for the layout, which is that of one.
    """

    program: Program
    members: int
    empty: Callable  # () -> states of no runs
    put: Callable  # (states, state, place) -> states
    take: Callable  # (states, place) -> state
    batches: Any  # where tokens (members, steps, B, T+1) lie
    each: Any  # where what every member has a row of lies


def hyper(run: Run, first: int, count: int, total: int, length: int) -> dict:
    """Learning rates and decay of steps first .. first+count, padded to `length`; computed on the
    host in float64.
    """
    f = np.zeros(length)
    f[:count] = [config.rate(run, first + i, total) for i in range(count)]
    made = {k: (f * peak).astype(np.float32) for k, peak in run.optimizer.peaks().items()}
    made["weight_decay"] = np.full(length, run.optimizer.weight_decay, np.float32)
    if average := averages.read(run.average):
        made["average"] = np.zeros(length, np.float32)
        made["average"][:count] = [average.weight(first + i, total) for i in range(count)]
    return made


PROGRAMS = 16  # that a process keeps: a worker may meet many shapes


@functools.lru_cache(maxsize=PROGRAMS)
def _program(
    model,
    optimizer,
    ex: Execution,
    mesh_text: str,
    batch: int,
    dispatch: int,
    separator: Separator | None,
    average: bool,
) -> Program:
    started = time.perf_counter()
    layout = layouts.lay(
        model, optimizer, ex, meshes.make(meshes.parse(mesh_text)), separator, average
    )
    platform, groups = jax.default_backend(), meshes.rows(layout.mesh.shape)
    compiled = functools.partial(choice.compiled, platform=platform)
    train = compiled(layouts.lower_train(layout, batch, dispatch))

    @functools.cache  # not before it is wanted
    def evaluate(rows: int):
        how = choice.evaluation(model, ex, platform, rows // groups)
        return compiled(layouts.lower_evaluate(layout, rows, how))

    return Program(
        layout,
        train,
        evaluate,
        dispatch,
        choice.evaluated(model, ex, platform, groups, batch),
        groups * model.unit,
        time.perf_counter() - started,
    )


@functools.lru_cache(maxsize=PROGRAMS)
def _pack(
    model,
    optimizer,
    ex: Execution,
    mesh_text: str,
    batch: int,
    dispatch: int,
    separator: Separator | None,
    average: bool,
    places: int,
) -> Pack:
    started = time.perf_counter()
    mesh = meshes.make(meshes.parse(mesh_text))
    layout = layouts.lay(model, optimizer, ex, mesh, separator, average)
    platform, groups = jax.default_backend(), meshes.rows(layout.mesh.shape)
    compiled = functools.partial(choice.compiled, platform=platform)
    train = compiled(packs.lower_train(layout, batch, dispatch, places))

    @functools.cache
    def evaluate(rows: int):
        how = choice.evaluation(model, ex, platform, rows // groups)
        return compiled(packs.lower_evaluate(layout, rows, how, places))

    rows = choice.evaluated(model, ex, platform, groups, batch)
    evaluate(rows)  # now: a run ends while others train, and they should not wait for a compiler
    seconds = time.perf_counter() - started
    return Pack(
        Program(layout, train, evaluate, dispatch, rows, groups * model.unit, seconds),
        places,
        functools.partial(packs.empty, layout, places),
        packs.put(layout),
        packs.take(layout),
        packs.batches(layout),
        packs.each(layout),
    )


def execution(run: Run, where: Where) -> Execution:
    """How `run` is executed here."""
    groups = meshes.rows(meshes.resolve(meshes.parse(where.mesh), jax.device_count()))
    tokens, platform = run.batch * run.model.seq_len, jax.default_backend()
    run = checks.resolve(run, platform)
    apart = run.data.documents == "apart"
    return choice.execution(run.model, where, run.dtype, platform, groups, tokens, apart)


def separator(run: Run, where: Where, dataset=None) -> Separator | None:
    """What tells the documents of a run apart; None where they are joined."""
    if run.data.documents == "joined":
        return None
    dataset = dataset or pipeline.load(run.data, run.model.seq_len, where.cache)
    return Separator(dataset.separator, dataset.separator_first)


def program(run: Run, where: Where, dataset=None) -> Program:
    """The compiled Program of a run; from this process's memory if one of equal shape ran
    before. The dataset says what separates documents.
    """
    return _program(*_shape(run, where, dataset))


def pack(run: Run, where: Where, dataset=None) -> Pack:
    """The compiled Pack of `where.members` runs of the shape of `run`."""
    model, static, ex, *rest = _shape(run, where, dataset)
    ex = members.mapped(ex, jax.default_backend())
    return _pack(model, static, ex, *rest, where.members)


def _shape(run: Run, where: Where, dataset) -> tuple:
    """What a compiled program depends on."""
    platform = jax.default_backend()
    ex = choice.able(execution(run, where))
    if not run.model.routed:  # fields that a dense model does not read must not split its cache
        ex = dataclasses.replace(ex, moe_groups=1, moe_rows=1, moe="block")
    # several processes call in step, and their clocks differ
    dispatch = where.steps_per_dispatch or (
        choice.choice(platform).steps_per_dispatch if jax.process_count() == 1 else 1
    )
    apart = separator(run, where, dataset)
    held, static = bool(run.average), run.optimizer.static()
    return run.model, static, ex, where.mesh, run.batch, dispatch, apart, held


def forget() -> None:
    """Drops the programs that this process has compiled, and what they hold on the device."""
    _program.cache_clear()
    _pack.cache_clear()
