"""Whether a process can compile and train at all, asked before anything is written."""

import os
import re
import subprocess

import jax

from launch.config import ConfigError
from launch.devices import child_process, choice

FILES = 64  # open files that a run may need at a time, checkpoints and compiled programs among them
CHECKED = "ISOFLOP_XLA_FLAGS"  # XLA_FLAGS as they were found good, for the processes below this one


def check() -> None:
    """Raises ConfigError where the environment of this process lets no run compile or train."""
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise ConfigError(
            "JAX_DISABLE_JIT is set, and every program here is compiled: unset JAX_DISABLE_JIT"
        )
    _open_files()
    flags = os.environ.get("XLA_FLAGS", "")
    if flags.strip() and os.environ.get(CHECKED) != flags:
        _parsed(flags)
        os.environ[CHECKED] = flags
    choice.probe()


def _open_files() -> None:
    """As many as a run needs, by this process's own right where it has it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    most, (soft, hard) = resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != most and soft < FILES and (hard == most or hard >= FILES):
        soft = 1024 if hard == most else min(1024, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    elif soft != most and soft < FILES:
        raise ConfigError(
            f"only {soft} files may be open at a time here, a run needs {FILES}: raise ulimit -n"
        )


def _parsed(flags: str) -> None:
    """XLA ends the process at a flag that it does not know, so a child meets it first."""
    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    done = subprocess.run(child_process.command("-c", code), capture_output=True, text=True)
    if found := re.search(r"Unknown flags? in XLA_FLAGS: *(.*)", done.stderr):
        raise ConfigError(
            f"XLA does not know {found[1].strip()[:200]}: take it out of XLA_FLAGS={flags!r}"
        )
