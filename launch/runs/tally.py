"""What a run counts beside its state: bytes, seconds, energy, metrics, the verdict. A checkpoint
keeps it, and a resumed run goes on from there.
"""

import time

import jax
import numpy as np

from launch import config
from launch.devices import energy
from launch.runs import divergence, record
from launch.runs.meter import Clock, Meter
from launch.runs.pace import Pace
from launch.trackers import chosen


class Tally:
    """meta: what the checkpoint kept that the run goes on from; {} at its start. Leaves lines of
    metrics in `folder` if this process is the leader. fork: the update up to which other runs
    may go on from this one (launch/runs/trunk.py).

    What another run has left at its fork is told again step by step: lines and verdict depend on
    the length of the run. `begun`: that run, its step and what it had spent; None of a run that
    trained all of its steps.
    """

    def __init__(self, run, where, folder, total, most, meta: dict, clock: Clock, fork=0):
        self.clock, self._id = clock, config.run_id(run)
        other = meta.get("run", self._id) != self._id
        self.begun = meta.get("begun")
        if other:
            self.begun = {k: meta[k] for k in ("run", "step", "seconds", "joules")}
        # of text, by source; a checkpoint of an earlier version has one number
        self.by_source = np.atleast_1d(np.array(meta.get("bytes", 0), np.int64))
        self.waited = meta.get("waited", 0.0)  # seconds for batches
        self._waited_before = self.waited
        self.steps = meta.get("step", 0)
        # a checkpoint of an earlier version has the seconds of training alone
        before = {"train": meta.get("seconds", 0.0)}
        kept = meta.get("clock", {"wall": before, "cpu": {}})
        if other:  # its start was its own
            kept = {of: {"train": laps.get("train", 0.0)} for of, laps in kept.items()}
        clock.go_on(kept)
        mine = {} if other else meta
        self.watch = divergence.Watch(total, run.max_bad_steps, mine.get("watch"))
        leader = jax.process_index() == 0
        first = mine.get("step", 0)
        self._out = (
            record.Metrics(folder, first, chosen.follow(run, where, folder, first))
            if leader
            else record.Nothing()
        )
        self.meter = Meter(run, where, total, self._out, self.watch, mine.get("meter"), fork)
        if other:
            self.meter.tell_again(meta["meter"]["history"])
        self.gauge = energy.Gauge(
            jax.local_device_count(), meta.get("joules", None if meta else 0.0)
        )
        self.pace = Pace(most, where.steps_per_dispatch)
        self._before, self._started = before["train"], time.perf_counter()
        self._pending = None

    def begin(self) -> None:
        """The first step begins now."""
        self._started = time.perf_counter()

    @property
    def bytes(self) -> int:
        """Of text that was read."""
        return int(self.by_source.sum())

    def add(self, count: int, text_bytes, metrics, waited: float) -> None:
        """Notes a dispatch of `count` steps: text_bytes of each, by source. Its metrics are read
        when the next is under way. waited: seconds for batches so far in this sitting.
        """
        self._read_pending()
        self._pending = (self.steps, text_bytes.sum(1), metrics)
        self.by_source, self.steps = self.by_source + text_bytes.sum(0), self.steps + count
        self.waited = self._waited_before + waited
        self.meter.waited = self.waited

    def _read_pending(self) -> None:
        if self._pending:
            self.meter.add(*self._pending)
            self.pace.finished(len(self._pending[1]))
            self._pending = None

    def pause(self) -> None:
        """Reads what is pending: a checkpoint comes next, or the end."""
        if self._pending:
            self.meter.add(*self._pending)
            self._pending = None
        self.pace.paused()

    def share(self, runs: float) -> None:
        """So many runs share this sitting: seconds, CPU time and energy are one part of them."""
        self.clock.share = self.gauge.share = runs

    @property
    def seconds(self) -> float:
        """Of training, in all sittings."""
        return self._before + (time.perf_counter() - self._started) / self.clock.share

    @property
    def loss(self) -> float:
        """The last one, as a checkpoint is ranked by."""
        return min(self.watch.last, 1e9)

    def kept(self) -> dict:
        """What a checkpoint keeps beside the state."""
        return {
            "run": self._id,
            "begun": self.begun,
            "step": self.steps,
            "bytes": self.by_source.tolist(),
            "waited": self.waited,
            "seconds": self.seconds,
            "joules": self.gauge.total(),
            "clock": self.clock.state("train"),
            "meter": self.meter.state(),
            "watch": self.watch.state(),
        }

    def tell(self, result: dict) -> None:
        """Trackers: the validation loss, once it is known."""
        last = result.get("validation") or {}
        found = {f"validation_{k}": last.get(k) for k in ("loss", "bits_per_byte")}
        self._out.tell({"step": self.steps} | found)

    def close(self) -> None:
        self._out.close()
