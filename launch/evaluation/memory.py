"""How much memory there is for a model's weights."""

import jax

# where a container says how much it may use and uses, newest first (cgroups 2 and 1)
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free() -> int | None:
    """Bytes that the first device of this process has left; of a CPU, that the host has, or the
    container. None where nobody says.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        about = device.memory_stats() or {}
        return about["bytes_limit"] - about["bytes_in_use"] if "bytes_limit" in about else None
    found = [x for x in (_host(), *(_left(*pair) for pair in LIMITS)) if x is not None]
    return min(found, default=None)


def _host() -> int | None:
    try:
        with open("/proc/meminfo") as f:
            line = next(line for line in f if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def _left(limit: str, used: str) -> int | None:
    try:
        with open(limit) as a, open(used) as b:
            return max(0, int(a.read()) - int(b.read()))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return None
