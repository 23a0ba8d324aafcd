"""What surrounds the loop of a run: who holds it, its phase, its checkpoints, and being told to
stop.
"""

import contextlib
import json
import os
import platform
import time

import jax
import numpy as np

from launch import config, files
from launch.config import Run, Where
from launch.runs import checkpoint, preempt, record, trunk
from launch.runs.lease import Held, Lease, Nothing


@contextlib.contextmanager
def open_run(run: Run, where: Where, folder: str):
    """The lease of the run's folder, None if its result stands. Process 0 decides for all. Raises
    RecordError.
    """
    with contextlib.ExitStack() as held:
        mine, error, verdict = Nothing(), None, 0
        if jax.process_index() == 0:
            try:
                record.claim(folder, run)
                mine = held.enter_context(Lease(folder, where.lease))
                verdict = 1 if record.result(folder, config.run_id(run)) is None else 2
            except (OSError, files.RecordError) as e:
                error = e
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            verdict = int(multihost_utils.broadcast_one_to_all(np.int32(verdict)))
        if verdict == 0:
            raise error or Held(f"{folder}: process 0 cannot have it, and says why")
        yield None if verdict == 2 else mine


class Session:
    """A run that trains: its phase, its checkpoints, and whether it was told to stop."""

    def __init__(
        self, run: Run, where: Where, folder: str, total: int, lease, say, forks=(), watcher=None
    ):
        """forks: of the trunk, at which the run may begin. watcher: of the pack that it is in."""
        self._where, self._folder, self._total, self._lease, self._say = (
            where,
            folder,
            total,
            lease,
            say,
        )
        self._identity, self.leader, self.done = config.run_id(run), jax.process_index() == 0, 0
        self._alone, self._saver = jax.process_count() == 1, None
        self.watcher = watcher or preempt.Watcher(self.leave)
        # several processes stop at the same step: jax.distributed listens to SIGTERM for all of
        # them; runs of a pack share a watcher, which outlives each of them
        self._own = self.watcher if self._alone and watcher is None else None
        self.every, self._saved, self._forks = where.checkpoint_every, None, forks

    def __enter__(self):
        if self._own:
            self._own.__enter__()
        return self

    def __exit__(self, kind, *error):
        if self._own:
            self._own.phase = "end"
        try:
            if self._saver:
                self._saver.__exit__(kind, *error)
        finally:
            if self._own:
                self._own.__exit__()

    def phase(self, name: str) -> None:
        """For whoever looks at the folder, and for the watcher, which ends the process in phases
        that cannot look themselves.
        """
        if self._own:
            self._own.phase = name
        if self.leader:
            status = {
                "phase": name,
                "step": self.done,
                "of": self._total,
                "pid": os.getpid(),
                "host": platform.node(),
                "time": time.time(),
            }
            files.write_text(
                os.path.join(self._folder, record.STATUS), json.dumps(status) + "\n", durable=False
            )

    @property
    def saved(self) -> bool:
        """Whether the state of this step is on the disk, or on its way."""
        return self._saved == self.done

    @property
    def saver(self) -> checkpoint.Checkpoints:
        if self._saver is None:
            self._saver = checkpoint.Checkpoints(
                self._folder, self._identity, self._where, self._lease.check
            )
        return self._saver

    def restore(self, like, shardings):
        """(state, meta) of the newest whole checkpoint, else of the nearest fork; None if there is
        none.
        """
        step = self._newest() if self.leader else None
        if not self._alone:
            from jax.experimental import multihost_utils

            step = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
            step = None if step < 0 else step
        self._saved = step
        return None if step is None else self.saver.restore(step, like, shardings)

    def _newest(self) -> int | None:
        about = self._folder, self._identity
        step = checkpoint.newest(*about, self._where.scan, self._say)
        if step is None and self._forks:
            trunk.take(*about, self._forks, self._where.scan, self._say)
            step = checkpoint.newest(*about, self._where.scan, self._say)
        return step

    def next_stop(self) -> int:
        """The step at which the next dispatch must end at the latest."""
        stops = [k for k in self._where.keep_steps if k > self.done] + [self._total]
        return min([*stops, (self.done // self.every + 1) * self.every] if self.every else stops)

    def stop_requested(self) -> bool:
        """Whether to save and stop after this step."""
        if self._alone:
            return self.watcher.asked
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(self.done)

    def due(self) -> bool:
        if self.done == self._total:
            return self._where.keep_final or bool(self.every) or self.done in self._where.keep_steps
        return (
            self.done in self._where.keep_steps or bool(self.every) and self.done % self.every == 0
        )

    def save(self, state, meta: dict, loss: float) -> None:
        self._lease.check()
        self.phase("save")
        self.saver.save(self.done, state, meta, loss)
        self._saved = self.done
        self.phase("step")

    def secure(self, state, meta: dict, loss: float) -> None:
        """Saves the last state, if it is not yet saved: what comes after it may fail, and training
        it again costs more.
        """
        if not self.saved:
            self.save(state, meta, loss)
        self.settle()

    def discard(self, begun: int = 0) -> None:
        """Removes the last state where none was asked for, and the fork that the run begun at; the
        result stands.
        """
        if self.saved and not self.due():
            checkpoint.remove(self._folder, self.done)
        if begun and begun not in self._where.keep_steps:
            checkpoint.remove(self._folder, begun)

    def settle(self) -> None:
        """Until the last save is on the disk and marked: the result comes after everything it
        stands for.
        """
        if self._saver:
            self._saver.wait()

    def check(self) -> None:
        self._lease.watch()
        if self._saver:
            self._saver.check()

    def stop(self) -> None:
        """Raises Preempted once the last save is on the disk."""
        self.saver.wait()
        raise preempt.Preempted(
            f"told to stop, saved at step {self.done} of {self._total}: the same command goes on"
            " from there"
        )

    def leave(self, phase: str) -> str:
        """Lets go of the run where no step can be saved. Returns where it stands, in words."""
        if self._saver:
            self._saver.wait()
        self._lease.give_back()
        found = checkpoint.steps(self._folder)
        safe = (
            f"the newest checkpoint is step {found[-1]} of {self._total}"
            if found
            else "no step was saved yet"
        )
        return (
            f"isoflop: told to stop in phase {phase}; {safe}: the same command goes on from there"
        )
