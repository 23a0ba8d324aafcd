"""What a run counts beside its state: bytes, seconds, energy, metrics, the verdict. A checkpoint
keeps it, and a resumed run goes on from there.
"""

import time

import jax

from launch.devices import energy
from launch.runs import divergence, record
from launch.runs.meter import Clock, Meter
from launch.runs.pace import Pace


class Tally:
    """meta: what the checkpoint kept that the run goes on from; {} at its start. Leaves lines of
    metrics in `folder` if this process is the leader.
    """

    def __init__(self, run, where, folder: str, total: int, most: int, meta: dict, clock: Clock):
        self.clock, self.bytes = clock, meta.get("bytes", 0)
        self.steps = meta.get("step", 0)
        # a checkpoint of an earlier version has the seconds of training alone
        before = {"train": meta.get("seconds", 0.0)}
        clock.go_on(meta.get("clock", {"wall": before, "cpu": {}}))
        self.watch = divergence.Watch(total, run.max_bad_steps, meta.get("watch"))
        leader = jax.process_index() == 0
        self._out = (
            record.Metrics(folder, self.steps, where.tensorboard) if leader else record.Nothing()
        )
        self.meter = Meter(run, where, total, self._out, self.watch, meta.get("meter"))
        self.gauge = energy.Gauge(
            jax.local_device_count(), meta.get("joules", None if meta else 0.0)
        )
        self.pace = Pace(most, where.steps_per_dispatch)
        self._before, self._started = before["train"], time.perf_counter()
        self._pending = None

    def begin(self) -> None:
        """The first step begins now."""
        self._started = time.perf_counter()

    def add(self, count: int, text_bytes, metrics) -> None:
        """Notes a dispatch of `count` steps. Its metrics are read when the next is under way."""
        self._read_pending()
        self._pending = (self.steps, text_bytes, metrics)
        self.bytes, self.steps = self.bytes + int(text_bytes.sum()), self.steps + count

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

    @property
    def seconds(self) -> float:
        """Of training, in all sittings."""
        return self._before + time.perf_counter() - self._started

    @property
    def loss(self) -> float:
        """The last one, as a checkpoint is ranked by."""
        return min(self.watch.last, 1e9)

    def kept(self) -> dict:
        """What a checkpoint keeps beside the state."""
        return {
            "step": self.steps,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "joules": self.gauge.total(),
            "clock": self.clock.state("train"),
            "meter": self.meter.state(),
            "watch": self.watch.state(),
        }

    def close(self) -> None:
        self._out.close()
