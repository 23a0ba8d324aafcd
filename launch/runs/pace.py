"""How many updates one call of the compiled program makes."""

import collections
import statistics
import time

# of a call, about: a request to stop waits for the call that runs and for the one behind it
SECONDS = 4.0


class Pace:
    """One update a call at first, then as many as the median of the last three calls would do in
    SECONDS, `most` at most; `always` so many where given.

    Every call has its price. Tiny steps pay for Python, long ones on a CPU for memory: XLA asks for
    a call's temporaries when it begins and gives them back when it ends, and the kernel clears
    every page of them (LOG.md, 2026-11-25).
    """

    def __init__(self, most: int, always: int = 0):
        self._most, self._always = most, always
        self._seconds, self._last = collections.deque(maxlen=3), None  # of an update

    def count(self) -> int:
        if self._always or not self._seconds:
            return self._always or 1
        return max(1, min(self._most, int(SECONDS / statistics.median(self._seconds))))

    def finished(self, updates: int) -> None:
        """So many updates, one call, are done, and the next call is under way."""
        now = time.perf_counter()
        if self._last is not None:
            self._seconds.append(max(1e-9, (now - self._last) / updates))
        self._last = now

    def paused(self) -> None:
        """No call is under way."""
        self._last = None
