"""TensorBoard's events, in the run's own folder."""

import os
import sys

PACKAGE, EXTRA = "tensorboardX", ""
APART, REWRITES = False, True


def _summary_writer():
    """tensorboardX's writer. Where torch is installed it imports it, for graphs that we do not
    write: a second or two of every start.
    """
    held = sys.modules.get("torch")
    sys.modules.setdefault("torch", None)  # its import fails, which tensorboardX expects
    try:
        from tensorboardX import SummaryWriter
    finally:
        if held is None:
            del sys.modules["torch"]
    return SummaryWriter


class Tracker:
    def __init__(self, about):
        self._about, self._made = about, _summary_writer()

    def open(self) -> None:
        folder = os.path.join(self._about.folder, "events")
        self._events = self._made(folder, purge_step=self._about.first or None, flush_secs=30)

    def write(self, step: int, values: dict) -> None:
        for name, v in values.items():
            self._events.add_scalar(name, v, step)

    def close(self) -> None:
        self._events.close()
