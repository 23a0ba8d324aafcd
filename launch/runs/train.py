"""The loop: introduces the data to the model, counts what it reads, and writes the record.

recipe -> Run + Where -> mesh and shardings -> state on the devices -> batches addressed by (seed,
step) -> the compiled step -> metrics, read one dispatch late -> result.json.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np

from data import pipeline
from launch import config, files
from launch.config import Run, Where
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from launch.runs import checks, evaluation, predictions, record, trunk
from launch.runs import program as programs
from launch.runs import result as results
from launch.runs.meter import Clock
from launch.runs.program import Program
from launch.runs.reader import Reader
from launch.runs.session import Session, open_run
from launch.runs.tally import Tally
from model import params, step

SAFE = 60.0  # seconds of training after which its state is saved before it is evaluated


def warn(text: str) -> None:
    print(f"isoflop: {text}", file=sys.stderr)


def _no_progress(done: int, total: int) -> None:
    pass


def train(
    run: Run,
    where: Where,
    folder: str,
    progress: Callable[[int, int], None] = _no_progress,
    tags: dict | None = None,
    say: Callable[[str], None] = warn,
    forks: Sequence[trunk.Fork] | None = None,
) -> dict:
    """Trains `run` in `folder` and returns its result; a finished one is returned as it stands, a
    stopped one goes on from its newest whole checkpoint.

    progress(done, total) is called after every dispatch, say(text) with warnings. forks: of the
    run's trunk, at which it may begin; it leaves its own for others. None: it has no trunk. Raises
    ConfigError, DataError, RecordError on what a user can mend, Preempted after SIGTERM; SIGTERM
    while compiling, restoring or evaluating ends the process with status 75.
    """
    run = checks.resolve(run, jax.default_backend())
    clock, total = Clock(), config.steps(run)
    own = 0 if forks is None else trunk.fork(run)
    if own:
        where = dataclasses.replace(where, keep_steps=(*where.keep_steps, own))
    dataset = pipeline.load(run.data, run.model.seq_len, where.cache)
    run = checks.identified(run, where, dataset)
    identity = config.run_id(run)
    finished = record.result(folder) if jax.process_count() == 1 else None
    if finished and finished["id"] == identity:
        return finished
    checks.check(run, where, dataset)
    predicted = predictions.of(where.prediction, identity)
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(open_run(run, where, folder))
        if lease is None:
            return record.result(folder, identity)
        session = stack.enter_context(Session(run, where, folder, total, lease, say, forks or ()))
        session.phase("compile")
        p = programs.program(run, where, dataset)
        clock.lap("setup")
        stack.enter_context(jax.set_mesh(p.layout.mesh))
        session.phase("restore")
        meta: dict = {}
        if found := session.restore(p.layout.state, p.layout.shardings):
            state, meta = found
        else:
            state = initial(p, run, where)
        session.done = meta.get("step", 0)
        tally = Tally(run, where, folder, total, p.dispatch, meta, clock, own)
        stack.enter_context(contextlib.closing(tally))
        session.phase("step")
        clock.lap("restore")
        state = _steps(run, p, state, dataset, total, progress, session, tally)
        kept, used = tally.kept(), tally.gauge.record()
        clock.lap("train")
        last, averaged = _evaluated(p, state, kept, session, tally, dataset)
        clock.lap("evaluate")
        result = results.made(run, where, p, dataset, tally, kept, last, averaged, tags or {})
        result |= {"cpu_seconds": clock.cpu, "energy": used}
        if predicted:
            result["prediction"] = predictions.judged(predicted, result)
        session.settle()
        tally.tell(result)
        tally.close()
        if jax.process_index() == 0:
            lease.check()
            result = record.finish(folder, result)
            session.discard(tally.begun["step"] if tally.begun else 0)
    return result


def _steps(run, p: Program, state, dataset, total, progress, session: Session, tally: Tally):
    """From step `session.done` to `total`, or to a verdict. Batches are read while the device
    computes. Returns the state.
    """
    rows = meshes.batch_sharding(p.layout.mesh, 1)
    reader = Reader(dataset, run.batch, rows, session.done, total, p.dispatch)
    tally.begin()
    with contextlib.closing(reader):
        while session.done < total and not tally.watch.verdict:
            done = session.done
            count = min(tally.pace.count(), session.next_stop() - done)
            read = reader.take(count)
            padding = np.zeros((p.dispatch - count, *read.tokens.shape[1:]), np.int32)
            state, metrics = p.train(
                state,
                meshes.put(np.concatenate([read.tokens, padding]), rows),
                programs.hyper(run, done, count, total, p.dispatch),
                np.int32(count),
            )
            tally.add(count, read.sizes, metrics, reader.waited)
            session.done = tally.steps
            progress(session.done, total)
            session.check()
            stop = session.stop_requested()
            if stop or session.due():
                tally.pause()
                session.save(state, tally.kept(), tally.loss)
            if stop:
                session.stop()
    tally.pause()
    jax.block_until_ready(state)
    return state


def _evaluated(p: Program, state, kept, session, tally: Tally, dataset) -> tuple:
    """`evaluate` of the weights and of their average, None without one, that costs no training:
    whatever fails in it, the state is on disk.
    """
    secure = functools.partial(session.secure, state, kept, tally.loss)
    if jax.process_count() > 1 or kept["seconds"] > SAFE:
        secure()
    session.phase("evaluate")
    try:
        last = evaluation.evaluate(p, step.variables(state), dataset)
        averaged = step.averaged(state) if state.average else None
        return last, averaged and evaluation.evaluate(p, averaged, dataset)
    except Exception:
        if jax.process_count() == 1:
            with contextlib.suppress(files.RecordError):  # the first error is the one to tell
                secure()
        raise


def initial(p: Program, run: Run, where: Where):
    """The state before the first step: drawn from the seed, or imported."""
    if not run.init:
        return layouts.initial(p.layout, run.seed)
    from launch.huggingface import folder

    _, held = folder.load(where.init_from, run.model)
    layers = params.scanned if where.scan else dict

    def placed(name: str):
        return meshes.put(layers(held[name]), getattr(p.layout.shardings, name))

    return layouts.started(p.layout, placed("params"), placed("buffers"))
