"""A tracker in a process of its own, that reads a run's lines from a pipe. Training never imports
the tracker's package, and its end never waits for a network: without one, W&B's own exit does.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import types

from launch.devices import child_process

_children: list = []  # one that is not waited for ends by itself, when its pipe does


class Tracker:
    """What a Follower calls. open and close wait, write may: on the follower's thread."""

    def __init__(self, place: str, about):
        self._first = json.dumps({"place": place, "about": about._asdict()})

    def open(self) -> None:
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            child_process.command("-m", "launch.trackers.apart"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env=child_process.environment(),
            text=True,
            start_new_session=True,  # ctrl-c is for the run; its pipe tells this one
        )
        _children.append(self._process)
        self._send(self._first)

    def write(self, step: int, values: dict) -> None:
        self._send(json.dumps({"step": step, "values": {k: float(v) for k, v in values.items()}}))

    def close(self) -> None:
        self._process.stdin.close()
        if self._process.wait():
            raise RuntimeError(self._why())
        self._said.close()

    def _send(self, line: str) -> None:
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()
            raise RuntimeError(self._why()) from None

    def _why(self) -> str:
        """The last line that it left on its stderr."""
        with self._said as f:
            f.seek(0)
            text = f.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(text) if line.strip()), "it ended without a word")


def main() -> int:
    first = json.loads(sys.stdin.readline())
    about = types.SimpleNamespace(**first["about"])
    try:
        tracker = importlib.import_module(first["place"]).Tracker(about)
        tracker.open()
        for line in map(json.loads, sys.stdin):
            tracker.write(line["step"], line["values"])
        tracker.close()
    except Exception as e:
        print(f"{type(e).__name__}: {' '.join(str(e).split())}", file=sys.stderr, flush=True)
        os._exit(1)  # what a package does at its exit may take long
    return 0


if __name__ == "__main__":
    sys.exit(main())
