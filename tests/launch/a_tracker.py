"""A tracker for tests: notes what it is told, and can be slow or fail."""

import json
import os
import time

PACKAGE, EXTRA = "json", ""
APART, REWRITES = False, False
TOLD: list = []  # (identity, what, step, values)
# made: it cannot be made; seconds that open takes; the step of which write raises
FAULTS: dict = json.loads(os.environ.get("A_TRACKER", "{}"))


class Tracker:
    def __init__(self, about):
        if FAULTS.get("made"):
            raise OSError(FAULTS["made"])
        self._about = about

    def open(self) -> None:
        shown = {k: getattr(self._about, k) for k in ("identity", "name", "group", "fields")}
        TOLD.append((self._about.identity, "open", self._about.first, shown))
        time.sleep(FAULTS.get("seconds", 0))

    def write(self, step: int, values: dict) -> None:
        if step == FAULTS.get("step"):
            raise ConnectionError("no network\nat all")
        TOLD.append((self._about.identity, "write", step, values))

    def close(self) -> None:
        TOLD.append((self._about.identity, "close", 0, {}))
