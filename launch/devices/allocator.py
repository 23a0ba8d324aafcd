"""Memory of a training process in large pages. XLA on CPU asks the C library for the temporaries of
every step anew and gives them back after it, and the kernel clears and maps them again page by
page: with pages of 2 MiB a step of a 7M model, 0.9 GB of temporaries, takes a fifth less CPU time
(LOG.md, 2026-11-25). glibc reads the setting when a process starts. No imports beyond the standard
library: `isoflop` comes through here first.
"""

import os
import sys

VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def environment() -> dict[str, str]:
    """What to add to the environment of a process that trains; {} where it is set already, or has
    no meaning.
    """
    return {VARIABLE: VALUE} if sys.platform == "linux" and VARIABLE not in os.environ else {}


def restart() -> None:
    """Starts this program again with the setting, in the same process, where it is not set."""
    if more := environment():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **more})
