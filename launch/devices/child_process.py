"""How our programs start Python processes: with our code, without files of the user's folder.

`python -m` and `python -c` put the current folder first on the path. A `data.py` or `random.py`
there would stand in for ours, or for Python's own.
"""

import os
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def command(*argv: str) -> list[str]:
    """A command that runs this Python without the current folder on its path."""
    return [sys.executable, "-P", *argv]


def environment() -> dict[str, str]:
    """Our environment, with our code first on the path. An empty entry of PYTHONPATH would be the
    current folder.
    """
    entries = [ROOT, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    path = os.pathsep.join(dict.fromkeys(e for e in entries if e))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
