"""The loop: introduces the data to the model, counts what it reads, and writes the record.

One `Program` (compiled step and evaluation) serves every run of equal shape in a process: learning
rate, decay, seed and number of steps are its inputs.
"""

import contextlib
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from data import pipeline
from launch import config, files
from launch.config import ConfigError, Run, Where
from launch.devices import choice, energy
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from launch.devices.layout import Layout
from launch.runs import divergence, evaluation, record
from launch.runs import result as results
from launch.runs.meter import Clock, Meter
from launch.runs.pace import Pace
from launch.runs.session import Session, open_run
from model import optim, params, step
from model.config import Execution

SAFE = 60.0  # seconds of training after which its state is saved before it is evaluated
MOST_STEPS = 1000  # of one call of the compiled program


class Program(NamedTuple):
    """Compiled functions for one shape, and how their arguments are laid out."""

    layout: Layout
    train: Callable
    evaluate: Callable  # the program that evaluates so many sequences
    dispatch: int
    eval_batch: int  # sequences that are evaluated at a time, multiples of eval_unit
    eval_unit: int
    compile_s: float


def use_cache(where: Where) -> None:
    """Compiled programs are kept on disk: a second start skips XLA."""
    from data.pack import cache_root

    jax.config.update("jax_compilation_cache_dir", os.path.join(cache_root(where.cache), "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def resolve(run: Run, platform: str) -> Run:
    """`run` with dtype `auto` replaced by the platform's: the dtype decides the result, so it is
    part of the identity.
    """
    return (
        dataclasses.replace(run, dtype=choice.choice(platform).dtype)
        if run.dtype == "auto"
        else run
    )


def identified(run: Run, where: Where, dataset=None) -> Run:
    """`run` with the content of its text and tokenizer named, which decides the result: its files
    may move, and may not change. Raises DataError where they are others than those named.
    """
    if run.data.source == "synthetic":  # its fields say everything
        return run
    dataset = dataset or pipeline.load(run.data, run.model.seq_len, where.cache)
    named = dataclasses.replace(run.data, content=pipeline.content(dataset))
    return dataclasses.replace(run, data=named)


def _hyper(run: Run, first: int, count: int, total: int, length: int) -> dict:
    """Learning rates and decay of steps first .. first+count, padded to `length`; computed on the
    host in float64.
    """
    o, out = run.optimizer, np.zeros((2, length))
    f = [optim.factor(run.schedule, first + i, total) for i in range(count)]
    out[0, :count], out[1, :count] = np.array(f) * o.lr, np.array(f) * optim.embed_rate(o)
    out = out.astype(np.float32)
    return {
        "lr": out[0],
        "embed_lr": out[1],
        "weight_decay": np.full(length, o.weight_decay, np.float32),
    }


PROGRAMS = 16  # that a process keeps: a worker may meet many shapes


@functools.lru_cache(maxsize=PROGRAMS)
def _program(model, optimizer, ex: Execution, mesh_text: str, batch: int, dispatch: int) -> Program:
    started = time.perf_counter()
    layout = layouts.lay(model, optimizer, ex, meshes.make(meshes.parse(mesh_text)))
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


def execution(run: Run, where: Where) -> Execution:
    """How `run` is executed here."""
    groups = meshes.rows(meshes.resolve(meshes.parse(where.mesh), jax.device_count()))
    tokens, platform = run.batch * run.model.seq_len, jax.default_backend()
    run = resolve(run, platform)
    return choice.execution(run.model, where, run.dtype, platform, groups, tokens)


def program(run: Run, where: Where) -> Program:
    """The compiled Program of a run; from this process's memory if one of equal shape ran
    before.
    """
    platform = jax.default_backend()
    ex = execution(run, where)
    if ex.attention == "cudnn" and not choice.has_cudnn():
        ex = dataclasses.replace(ex, attention="xla")
    if not run.model.routed:  # fields that a dense model does not read must not split its cache
        ex = dataclasses.replace(ex, moe_groups=1, moe_rows=1, moe="block")
    o = run.optimizer
    static = optim.Optimizer(b1=o.b1, b2=o.b2, eps=o.eps, clip=o.clip, decay=o.decay)
    # several processes call in step, and their clocks differ
    dispatch = where.steps_per_dispatch or (
        choice.choice(platform).steps_per_dispatch if jax.process_count() == 1 else 1
    )
    return _program(run.model, static, ex, where.mesh, run.batch, dispatch)


def forget() -> None:
    """Drops the programs that this process has compiled, and what they hold on the device."""
    _program.cache_clear()


def check(run: Run, where: Where, dataset=None, devices: int | None = None) -> None:
    """Raises ConfigError or DataError for anything that would stop the run, before anything
    compiles or is written.

    devices: how many the process that trains will see; those of this process if None.
    """
    config.check(run)
    config.check_moe(run.model, where)
    if not 1 <= where.lease <= 86400:
        raise ConfigError(f"where.lease={where.lease:g} must lie in 1 .. 86400 seconds")
    for name in ("steps_per_dispatch", "log_every", "checkpoint_every", "keep", "workers"):
        if getattr(where, name) < 0:
            raise ConfigError(f"where.{name}={getattr(where, name)} cannot be negative")
    if where.steps_per_dispatch > MOST_STEPS:  # all their batches are handed over at once
        raise ConfigError(
            f"where.steps_per_dispatch={where.steps_per_dispatch} is more than {MOST_STEPS}: leave"
            " it 0, or give fewer"
        )
    if run.init or where.init_from:
        _check_init(run, where)
    if where.accumulate < 1:
        raise ConfigError(
            f"where.accumulate={where.accumulate} must be at least 1 micro-batch a step"
        )
    devices = jax.device_count() if devices is None else devices
    meshes.check(meshes.parse(where.mesh), run.model, run.batch, devices, where.accumulate)
    dataset = dataset or pipeline.load(run.data, run.model.seq_len, where.cache)
    if dataset.vocab_size > run.model.vocab_size:
        raise ConfigError(
            f"the tokenizer has {dataset.vocab_size} ids, model.vocab_size is"
            f" {run.model.vocab_size}: set model.vocab_size={dataset.vocab_size}"
        )


def train(
    run: Run,
    where: Where,
    folder: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tags: dict | None = None,
    say: Callable[[str], None] = lambda text: print(f"isoflop: {text}", file=sys.stderr),
) -> dict:
    """Trains `run` in `folder` and returns its result; a finished one is returned as it stands, a
    stopped one goes on from its newest whole checkpoint.

    progress(done, total) is called after every dispatch, say(text) with warnings. Raises
    ConfigError, DataError, RecordError on what a user can mend, Preempted after SIGTERM; SIGTERM
    while compiling, restoring or evaluating ends the process with status 75.
    """
    run = resolve(run, jax.default_backend())
    clock, total = Clock(), config.steps(run)
    dataset = pipeline.load(run.data, run.model.seq_len, where.cache)
    run = identified(run, where, dataset)
    identity, leader = config.run_id(run), jax.process_index() == 0
    finished = record.result(folder) if jax.process_count() == 1 else None
    if finished and finished["id"] == identity:
        return finished
    check(run, where, dataset)
    with contextlib.ExitStack() as held:
        lease = held.enter_context(open_run(run, where, folder))
        if lease is None:
            return record.result(folder, identity)
        session = held.enter_context(Session(run, where, folder, total, lease, say))
        session.phase("compile")
        p = program(run, where)
        clock.lap("setup")
        held.enter_context(jax.set_mesh(p.layout.mesh))
        session.phase("restore")
        state, meta = session.restore(p.layout.state, p.layout.shardings) or (
            _initial(p, run, where),
            {},
        )
        session.done = meta.get("step", 0)
        # a checkpoint of an earlier version has the seconds of training alone
        before = {"train": meta.get("seconds", 0.0)}
        clock.go_on(meta.get("clock", {"wall": before, "cpu": {}}))
        watch = divergence.Watch(total, run.max_bad_steps, meta.get("watch"))
        out = held.enter_context(
            contextlib.closing(
                record.Metrics(folder, session.done, where.tensorboard)
                if leader
                else record.Nothing()
            )
        )
        meter = Meter(run, where, total, out, watch, meta.get("meter"))
        session.phase("step")
        clock.lap("restore")
        gauge = energy.Gauge(jax.local_device_count(), meta.get("joules", None if meta else 0.0))
        pace = Pace(p.dispatch, where.steps_per_dispatch)
        state, kept = _steps(
            run, p, state, dataset, total, progress, session, meter, watch, meta, gauge, pace, clock
        )
        used = gauge.record()
        clock.lap("train")
        found = _evaluated(p, state, kept, session, min(watch.last, 1e9), dataset)
        clock.lap("evaluate")
        times = clock.record(kept["seconds"])
        result = results.made(
            run,
            where,
            p,
            dataset,
            session.done,
            kept["bytes"],
            found,
            times,
            meter.last_loss,
            watch,
            tags or {},
        )
        result |= {"cpu_seconds": clock.cpu, "energy": used}
        session.settle()
        out.close()
        if leader:
            lease.check()
            result = record.finish(folder, result)
            session.discard()
    return result


def _evaluated(
    p: Program, state, kept: dict, session: Session, loss: float, dataset
) -> evaluation.Evaluation:
    """`evaluate` that costs no training: whatever fails in it, the state is on disk."""
    secure = functools.partial(session.secure, state, kept, loss)
    if jax.process_count() > 1 or kept["seconds"] > SAFE:
        secure()
    session.phase("evaluate")
    try:
        return evaluation.evaluate(p, step.variables(state), dataset)
    except Exception:
        if jax.process_count() == 1:
            with contextlib.suppress(files.RecordError):  # the first error is the one to tell
                secure()
        raise


def _initial(p: Program, run: Run, where: Where):
    """The state before the first step: drawn from the seed, or imported."""
    if not run.init:
        return layouts.initial(p.layout, run.seed)
    from launch.huggingface import folder

    _, held = folder.load(where.init_from, run.model)
    layers = params.scanned if where.scan else dict
    put = lambda name: meshes.put(layers(held[name]), getattr(p.layout.shardings, name))
    return layouts.started(p.layout, put("params"), put("buffers"))


def _check_init(run: Run, where: Where) -> None:
    """Raises ConfigError unless `where.init_from` holds the weights that `run.init` names, in the
    shapes of `run.model`.
    """
    from launch.huggingface import folder

    if not where.init_from:
        raise ConfigError(
            f"the run starts from imported weights {run.init}: say where they are with"
            " --init_from=HF_DIR"
        )
    found = folder.fingerprint(where.init_from)
    if found != run.init:
        raise ConfigError(
            f"--init_from={where.init_from} holds the weights {found}, the run starts from"
            f" {run.init}: give another folder or --workdir"
        )
    folder.load(where.init_from, run.model)


def _steps(
    run,
    p: Program,
    state,
    dataset,
    total,
    progress,
    session: Session,
    meter: Meter,
    watch,
    meta,
    gauge,
    pace,
    clock,
):
    """From step `session.done` to `total`, or to a verdict. Batches are read while the device
    computes; metrics are read one dispatch late. Returns (state, what a checkpoint of it keeps
    beside it).
    """
    counted_bytes, before, started = (
        meta.get("bytes", 0),
        meta.get("seconds", 0.0),
        time.perf_counter(),
    )
    pending = None

    def kept():
        return {
            "step": session.done,
            "bytes": counted_bytes,
            "seconds": before + time.perf_counter() - started,
            "joules": gauge.total(),
            "clock": clock.state("train"),
            "meter": meter.state(),
            "watch": watch.state(),
        }

    while session.done < total and not watch.verdict:
        done, count = session.done, min(pace.count(), session.next_stop() - session.done)
        read = [dataset.counted_batch(done + i, run.batch) for i in range(count)]
        rows, text_bytes = (
            np.stack([tokens for tokens, _ in read]),
            np.array([sizes.sum() for _, sizes in read]),
        )
        padded = np.concatenate([rows, np.zeros((p.dispatch - count, *rows.shape[1:]), np.int32)])
        state, metrics = p.train(
            state,
            meshes.put(padded, meshes.batch_sharding(p.layout.mesh, 1)),
            _hyper(run, done, count, total, p.dispatch),
            np.int32(count),
        )
        if pending:
            meter.add(*pending)
            pace.finished(len(pending[1]))
        pending = (done, text_bytes, metrics)
        counted_bytes, session.done = counted_bytes + int(text_bytes.sum()), done + count
        progress(session.done, total)
        session.check()
        stop = session.stop_requested()
        if stop or session.due():
            meter.add(*pending)
            pending = None
            pace.paused()
            session.save(state, kept(), min(watch.last, 1e9))
        if stop:
            session.stop()
    if pending:
        meter.add(*pending)
    jax.block_until_ready(state)
    return state, kept()
