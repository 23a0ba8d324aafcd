"""Several runs of equal shape, trained by one compiled program: a pack. Each run has its own lease,
folder, batches, rates, metrics, checkpoints and result, as if it were alone.

A run that ends leaves its place to one that waits. In a place that nobody wants the program
computes on and changes nothing. The loop is that of `train.py`, with a row for every place.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from launch.config import Where
from launch.devices import choice, members
from launch.devices import mesh as meshes
from launch.runs import evaluation, preempt
from launch.runs import program as programs
from launch.runs.member import Member, Order, Told
from launch.runs.train import warn
from model import step


class _Pack:
    """The runs of one process."""

    def __init__(self, where: Where, more, tell, progress, say):
        self._where = members.spread(where, jax.device_count())
        self._more, self._tell, self._progress = more, tell, progress
        self._say, self._live, self._waiting = say, {}, []  # type: ignore[var-annotated]
        self.watcher = preempt.Watcher(self._leave)
        self._before: Any = None  # metrics of the call before

    def _leave(self, phase: str) -> str:
        said = f"isoflop: told to stop in phase {phase}"
        for m in (*self._live.values(), *self._waiting):
            with contextlib.suppress(Exception):  # the others are to be made safe as well
                said = m.session.leave(phase)
        return said

    def _told(self, order: Order, result=None, error=None) -> None:
        self._tell(Told(order, result, error))

    def _admit(self) -> None:
        """Takes orders for the places that are free."""
        free = self._where.members - len(self._live) - len(self._waiting)
        while free and not self.watcher.asked and (order := self._more()) is not None:
            try:
                member = Member(order, self._where, self.watcher, self._say)
            except Exception as e:
                self._told(order, error=e)
                continue
            if member.result:
                self._told(order, member.result)
                continue
            self._waiting.append(member)
            free -= 1

    def _drop(self, place: int, error: Exception) -> None:
        """A run that cannot go on; the others do. A want of memory is no single run's."""
        if choice.out_of_memory(error):
            raise error
        member = self._live.pop(place)
        member.close(error)
        self._told(member.order, error=error)

    def run(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.watcher)
            stack.callback(self._close)
            self._admit()
            if not self._waiting:
                return
            self.watcher.phase = "compile"
            first = self._waiting[0]
            self._p = programs.pack(first.run, self._where, first.dataset)
            stack.enter_context(jax.set_mesh(self._p.program.layout.mesh))
            self._states = self._p.empty()
            while self._waiting or self._live:
                self._start()
                self._step()
                self._end()
                self._admit()
            if self.watcher.asked:
                raise preempt.Preempted("told to stop; the same command goes on")

    def _close(self) -> None:
        self.watcher.phase = "end"
        for m in (*self._live.values(), *self._waiting):
            m.close()

    def _start(self) -> None:
        """Those that wait take free places."""
        for member in self._waiting:
            try:
                state = member.start(self._p)
            except Exception as e:
                if choice.out_of_memory(e):
                    raise
                self._waiting = [m for m in self._waiting if m is not member]
                member.close(e)
                self._told(member.order, error=e)
                continue
            place = next(k for k in range(self._p.members) if k not in self._live)
            self._states = self._p.put(self._states, state, np.int32(place))
            self._live[place] = member
        self._waiting = []
        self.watcher.phase = "step"

    def _step(self) -> None:
        """One call of the program: as many steps as every run may do."""
        going = {k: m for k, m in self._live.items() if not m.ended}
        count, read = min((m.most() for m in going.values()), default=0), {}
        for place, member in going.items():
            try:
                read[place] = member.reader.take(count)
            except Exception as e:
                self._drop(place, e)
        if read:
            self._call(count, read)
        stop = self.watcher.asked
        self._save(lambda k, m: stop or k in read and m.session.due())
        if stop:
            self._stop()

    def _taken(self, place: int) -> Callable[[], Any]:
        return functools.partial(self._p.take, self._states, np.int32(place))

    def _save(self, wanted: Callable[[int, Member], bool]) -> None:
        """Saves what is not yet saved and `wanted`, in the background."""
        live = self._live.items()
        due = [(k, m) for k, m in live if not m.session.saved and wanted(k, m)]
        if due:
            jax.block_until_ready(self._before)
        for place, member in due:
            try:
                member.save(self._taken(place))
            except Exception as e:
                self._drop(place, e)

    def _call(self, count: int, read: dict) -> None:
        p, rows = self._p, self._p.members
        one = next(iter(read.values())).tokens
        tokens = np.zeros((rows, p.program.dispatch, *one.shape[1:]), np.int32)
        hyper: dict = {"live": np.zeros(tokens.shape[:2], bool)}
        for place, batches in read.items():
            m = self._live[place]
            tokens[place, :count], hyper["live"][place] = batches.tokens, True
            for k, v in programs.hyper(
                m.run, m.session.done, count, m.total, p.program.dispatch
            ).items():
                hyper.setdefault(k, np.zeros(tokens.shape[:2], np.float32))[place] = v
        self._states, metrics = p.program.train(
            self._states,
            meshes.put(tokens, p.batches),
            {k: meshes.put(v, p.each) for k, v in hyper.items()},
            np.int32(count),
        )
        jax.block_until_ready(self._before)  # what fails on the device is no single run's fault
        self._before = metrics
        for place, batches in read.items():
            member = self._live[place]
            try:
                member.add(batches, metrics, place, len(read))
            except Exception as e:
                self._drop(place, e)
                continue
            self._progress(member.order, member.session.done, member.total)

    def _stop(self) -> None:
        for place, member in list(self._live.items()):
            try:
                member.session.settle()
            except Exception as e:
                self._drop(place, e)
        raise preempt.Preempted(
            f"told to stop, {len(self._live)} runs are saved: the same command goes on from there"
        )

    def _end(self) -> None:
        """Those that have ended are evaluated together, and make room."""
        if any(m.ended for m in self._live.values()):
            jax.block_until_ready(self._before)
        for place, member in list(self._live.items()):
            if member.ended:
                try:
                    member.end_training(self._taken(place))
                    member.session.phase("evaluate")
                except Exception as e:
                    self._drop(place, e)
        ended = {k: m for k, m in self._live.items() if m.ended}
        if not ended:
            return
        last, averaged = self._evaluated({k: m.dataset for k, m in ended.items()})
        for place, member in ended.items():
            try:
                result = member.finish(self._p, last[place], averaged.get(place))
            except Exception as e:
                self._drop(place, e)
                continue
            del self._live[place]
            member.close()
            self._told(member.order, result)

    def _evaluated(self, datasets: dict) -> tuple[dict, dict]:
        """Evaluations by place, of the weights and of their average. Whatever fails in it, and if
        a stop is asked for meanwhile, no training is lost: the states of all are saved.
        """
        own = self._p.program.evaluate

        def evaluate(rows: int):
            if self.watcher.asked:
                raise preempt.Preempted("told to stop")
            return own(rows)

        p = self._p.program._replace(evaluate=evaluate)
        try:
            last = evaluation.evaluate_pack(p, step.variables(self._states), datasets)
            if not self._states.average:
                return last, {}
            return last, evaluation.evaluate_pack(p, step.averaged(self._states), datasets)
        except Exception:
            self._save(lambda *_: True)
            if self.watcher.asked:
                self._stop()
            raise


def train(
    where: Where,
    more: Callable[[], Order | None],
    tell: Callable[[Told], None],
    progress: Callable[[Order, int, int], None] = lambda order, done, total: None,
    say: Callable[[str], None] = warn,
) -> None:
    """Trains the runs that `more()` gives, `where.members` at a time, until it gives None while
    nothing trains. They are of equal shape, and read the same text but for the order.

    tell(told) is called once for each of them. Raises Preempted after SIGTERM, and what stops all
    of them, such as a want of memory: those of which nothing was told can be trained again, and go
    on from their checkpoints.
    """
    _Pack(where, more, tell, progress, say).run()
