"""One run of a pack: what it holds, counts and reads. See launch/runs/pack.py."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from data import pipeline
from launch import config
from launch.config import Run, Where
from launch.devices import mesh as meshes
from launch.runs import checks, record, trunk
from launch.runs import program as programs
from launch.runs import result as results
from launch.runs.meter import Clock
from launch.runs.reader import Reader
from launch.runs.session import Session, open_run
from launch.runs.tally import Tally
from launch.runs.train import SAFE, initial


class Order(NamedTuple):
    """A run to train, and where."""

    run: Run
    folder: str
    tags: dict
    forks: tuple[trunk.Fork, ...] | None = None  # as in launch/runs/train.py


class Told(NamedTuple):
    """What became of an order: its result, or what stopped it."""

    order: Order
    result: dict | None
    error: Exception | None


class _Row:
    """What one place has of an array of all. It is read when it is wanted, one call late."""

    def __init__(self, whole, place: int):
        self._whole, self._place = whole, place

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._whole)[self._place]


class Member:
    """A run that has the lease of its folder."""

    def __init__(self, order: Order, where: Where, watcher, say):
        self.order, self.clock = order, Clock()
        self.run = checks.resolve(order.run, jax.default_backend())
        self.total, self.fork = config.steps(self.run), 0
        if order.forks is not None and (own := trunk.fork(self.run)):
            self.fork = own
            where = dataclasses.replace(where, keep_steps=(*where.keep_steps, own))
        self.dataset = pipeline.load(self.run.data, self.run.model.seq_len, where.cache)
        self.run = checks.identified(self.run, where, self.dataset)
        self.result = record.result(order.folder)
        if self.result and self.result["id"] != config.run_id(self.run):
            self.result = None
        self._where, self._stack = where, contextlib.ExitStack()
        self._calls = self._together = self._most = 0  # runs that its calls have trained
        self.kept: dict = {}  # what a checkpoint keeps, once no step is left
        if self.result:
            return
        checks.check(self.run, where, self.dataset)
        with contextlib.ExitStack() as stack:  # kept only if all of it succeeds
            self.lease = stack.enter_context(open_run(self.run, where, order.folder))
            if self.lease is None:
                self.result = record.result(order.folder, config.run_id(self.run))
                return
            about = (self.run, where, order.folder, self.total, self.lease, say)
            self.session = stack.enter_context(Session(*about, order.forks or (), watcher))
            self.session.phase("compile")
            self._stack = stack.pop_all()

    def start(self, p: programs.Pack):
        """The state that the run goes on from: saved, imported, or drawn from its seed."""
        self.clock.lap("setup")
        self.session.phase("restore")
        layout, meta = p.program.layout, {}
        if found := self.session.restore(layout.state, layout.shardings):
            state, meta = found
        else:
            state = initial(p.program, self.run, self._where)
        self.session.done = meta.get("step", 0)
        folder, most = self.order.folder, p.program.dispatch
        about = (self.run, self._where, folder, self.total, most, meta, self.clock, self.fork)
        self.tally = Tally(*about)
        self._stack.enter_context(contextlib.closing(self.tally))
        rows = meshes.batch_sharding(layout.mesh, 1)
        at = (self.session.done, self.total, p.program.dispatch)
        self.reader = Reader(self.dataset, self.run.batch, rows, *at)
        self._stack.enter_context(contextlib.closing(self.reader))
        self.clock.lap("restore")
        self.session.phase("step")
        self.tally.begin()
        return state

    @property
    def ended(self) -> bool:
        return self.session.done >= self.total or bool(self.tally.watch.verdict)

    def most(self) -> int:
        """Steps that the next call may do."""
        return min(self.tally.pace.count(), self.session.next_stop() - self.session.done)

    def add(self, read, metrics, place: int, live: int) -> None:
        """Notes a call: what was read for it, and all places' metrics."""
        rows = jax.tree.map(lambda a: _Row(a, place), metrics)
        self.tally.add(len(read.sizes), read.sizes, rows, self.reader.waited)
        self.session.done = self.tally.steps
        self._calls, self._together = self._calls + 1, self._together + live
        self._most = max(self._most, live)
        self.tally.share(self._together / self._calls)
        self.session.check()

    def finish(self, p: programs.Pack, last, averaged) -> dict:
        """Writes the result. Its seconds, CPU time and energy are the run's share of what the
        process took: one part in as many as trained with it, in the mean of its calls.
        """
        self.clock.lap("evaluate")
        about = (self.run, self._where, p.program, self.dataset, self.tally, self.kept)
        made = results.made(*about, last, averaged, self.order.tags)
        most = max(1, self._most)
        made |= {"cpu_seconds": self.clock.cpu, "energy": self.used, "members": most}
        self.session.settle()
        self.tally.tell(made)
        self.tally.close()
        self.lease.check()
        made = record.finish(self.order.folder, made)
        self.session.discard(self.tally.begun["step"] if self.tally.begun else 0)
        return made

    def end_training(self, take: Callable[[], Any]) -> None:
        """No more steps: what they took is noted, and a long one's state made safe."""
        self.tally.pause()
        self.kept, self.used = self.tally.kept(), self.tally.gauge.record()
        self.clock.lap("train")
        if self.kept["seconds"] > SAFE:
            self.session.secure(_whole(take), self.kept, self.tally.loss)

    def save(self, take: Callable[[], Any]) -> None:
        """Saves the state, in the background."""
        self.tally.pause()
        self.session.save(_whole(take), self.kept or self.tally.kept(), self.tally.loss)

    def close(self, error: BaseException | None = None) -> None:
        """Gives back the lease, and ends its threads. Raises nothing: what came before stands."""
        kind = (type(error), error, error.__traceback__) if error else (None, None, None)
        with contextlib.suppress(Exception):
            self._stack.__exit__(*kind)


def _whole(take: Callable[[], Any]):
    """The state, once it stands: a device without room for it says so here, not the disk's writer,
    whose words for a full disk are the same.
    """
    return jax.block_until_ready(take())
