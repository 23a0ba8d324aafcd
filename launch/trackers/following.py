"""A tracker on a thread of its own, which takes lines from a queue: what is slow or fails in it
neither holds the run nor ends it.
"""

import importlib
import queue
import sys
import threading
from typing import NamedTuple

WAIT = 10.0  # seconds that the end of a run waits for what a tracker has still to take
MOST = 10_000  # lines that may wait for a tracker


class About(NamedTuple):
    """`first`: the step that training goes on from. `group`: the sweep that the run is one of, or
    nothing. `fields` of the run, as records have them. `project`: where no variable names one.
    """

    identity: str
    name: str
    group: str
    folder: str
    fields: dict
    first: int
    project: str = "isoflop"


_off: set[str] = set()  # trackers that failed in this process: one message, and no further wait


class Follower:
    """Of one run by one tracker, the one in module `place`. Nothing here raises."""

    def __init__(self, name: str, place: str, about: About):
        module = importlib.import_module(place)
        self._name, self._after = name, about.first
        self._rewrites = module.REWRITES
        self._lines: queue.Queue = queue.Queue(MOST)
        self._thread = None
        if name in _off:
            return
        try:
            if module.APART:
                from launch.trackers import apart

                self._tracker = apart.Tracker(place, about)
            else:
                self._tracker = module.Tracker(about)
        except Exception as e:
            self._fail(e)
            return
        self._thread = threading.Thread(target=self._run, name=f"isoflop-{name}", daemon=True)

    def begin(self, told: int) -> None:
        """told: the last step that was written of this run before: its lines, trained again, are
        the same.
        """
        if not self._rewrites:
            self._after = max(self._after, told)
        if self._thread:
            self._thread.start()

    def write(self, line: dict, again: bool = False) -> None:
        """A line of metrics. again: also of a step that was told before."""
        if not self._thread or self._name in _off or (line["step"] <= self._after and not again):
            return
        try:
            self._lines.put_nowait((line["step"], values(line)))
        except queue.Full:
            self._fail(f"{MOST} lines wait for it")

    def close(self) -> None:
        if not self._thread or self._name in _off:
            return
        try:
            self._lines.put_nowait(None)
            self._thread.join(WAIT)
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._fail(f"it has not taken all lines {WAIT:g} s after the run's end")

    def _run(self) -> None:
        try:
            self._tracker.open()
            while (line := self._lines.get()) is not None:
                self._tracker.write(*line)
            self._tracker.close()
        except Exception as e:
            self._fail(e)

    def _fail(self, why) -> None:
        if self._name in _off:
            return
        _off.add(self._name)
        text = f"{type(why).__name__}: {why}" if isinstance(why, BaseException) else why
        print(
            f"isoflop: {self._name} is left out from here on ({' '.join(text.split())[:300]});"
            " training goes on, and metrics.jsonl has every line",
            file=sys.stderr,
        )


def values(line: dict) -> dict[str, float]:
    """The numbers of a line by name; of a list, one for each MoE layer."""
    out = {}
    for name, v in line.items():
        if isinstance(v, list):
            out |= {f"{name}/moe_layer_{i}": x for i, x in enumerate(v) if x is not None}
        elif name != "step" and v is not None:
            out[name] = v
    return out
