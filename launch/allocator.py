"""Memory of a training process. XLA on CPU asks the C library for the temporaries of every step anew and gives them back after it; glibc passes
that on to the kernel, which clears and maps every page again. A training process keeps its memory instead, in pages of 2 MiB: a step of a 7M
model, 0.9 GB of temporaries, takes a fifth less CPU time, and one after a pause does not pay for what the host took away meanwhile (LOG.md,
2026-11-25). glibc reads the setting when a process starts. No imports beyond the standard library: `isoflop` comes through here first.
"""

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
# large pages; one heap, so that what one thread frees another takes; nothing mapped apart; nothing given back
TUNABLES = {"hugetlb": 1, "arena_max": 1, "mmap_max": 0, "trim_threshold": 2**36}
VALUE = ":".join(f"glibc.malloc.{name}={value}" for name, value in TUNABLES.items())


def environment() -> dict[str, str]:
    """What to add to the environment of a process that trains; {} where it is set already, or has no meaning."""
    return {VARIABLE: VALUE} if sys.platform == "linux" and VARIABLE not in os.environ else {}


def restart() -> None:
    """Starts this program again with the setting, in the same process, where it is not set."""
    if more := environment():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **more})
