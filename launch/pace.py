"""How many updates one call of the compiled program makes."""

import time

SECONDS = 5.0  # of a call, at most: metrics, saves and a request to stop wait for it


class Pace:
    """One update a call at first, then as many as the quickest so far would do in SECONDS, `most` at most; `always` so many where given.

    Every call has its price. Tiny steps pay for Python, long ones on a CPU for memory: XLA asks for a call's temporaries when it begins and gives
    them back when it ends, and the kernel clears every page of them (LOG.md, 2026-11-25)."""

    def __init__(self, most: int, always: int = 0):
        self._most, self._always = most, always
        self._quickest, self._last = float("inf"), None

    def count(self) -> int:
        return self._always or max(1, min(self._most, int(SECONDS / self._quickest)))

    def finished(self, updates: int) -> None:
        """So many updates, one call, are done, and the next call is under way."""
        now = time.perf_counter()
        if self._last is not None:
            self._quickest = min(self._quickest, (now - self._last) / updates)
        self._last = now

    def paused(self) -> None:
        """No call is under way."""
        self._last = None
