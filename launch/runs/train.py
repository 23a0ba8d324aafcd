"""The loop: introduces the data to the model, counts what it reads, and writes the record.

One `Program` (compiled step and evaluation) serves every run of equal shape in a process: learning
rate, decay, seed and number of steps are its inputs.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from data import pipeline
from launch import config, files
from launch.config import Run, Where
from launch.devices import energy
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from launch.runs import checks, divergence, evaluation, record
from launch.runs import program as programs
from launch.runs import result as results
from launch.runs.meter import Clock, Meter
from launch.runs.pace import Pace
from launch.runs.session import Session, open_run
from model import params, step

SAFE = 60.0  # seconds of training after which its state is saved before it is evaluated


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
    run = checks.resolve(run, jax.default_backend())
    clock, total = Clock(), config.steps(run)
    dataset = pipeline.load(run.data, run.model.seq_len, where.cache)
    run = checks.identified(run, where, dataset)
    identity, leader = config.run_id(run), jax.process_index() == 0
    finished = record.result(folder) if jax.process_count() == 1 else None
    if finished and finished["id"] == identity:
        return finished
    checks.check(run, where, dataset)
    with contextlib.ExitStack() as held:
        lease = held.enter_context(open_run(run, where, folder))
        if lease is None:
            return record.result(folder, identity)
        session = held.enter_context(Session(run, where, folder, total, lease, say))
        session.phase("compile")
        p = programs.program(run, where)
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
    p: programs.Program, state, kept: dict, session: Session, loss: float, dataset
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


def _initial(p: programs.Program, run: Run, where: Where):
    """The state before the first step: drawn from the seed, or imported."""
    if not run.init:
        return layouts.initial(p.layout, run.seed)
    from launch.huggingface import folder

    _, held = folder.load(where.init_from, run.model)
    layers = params.scanned if where.scan else dict
    put = lambda name: meshes.put(layers(held[name]), getattr(p.layout.shardings, name))
    return layouts.started(p.layout, put("params"), put("buffers"))


def _steps(
    run,
    p: programs.Program,
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
            programs.hyper(run, done, count, total, p.dispatch),
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
