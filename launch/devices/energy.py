"""Energy that NVIDIA's boards say they used, through NVML (`pynvml`, of the extra `cuda`). Where
there is none, the answer is None.
"""

import functools
import os


@functools.cache
def _boards(count: int) -> tuple:
    """(nvml, handles) of the `count` devices that this process sees; (None, ()) where NVML or its
    counter of energy is missing.
    """
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        visible = [
            v.strip() for v in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if v.strip()
        ]
        visible = visible or [str(i) for i in range(nvml.nvmlDeviceGetCount())]

        # NVML counts boards in the order of the bus, as CUDA does for equal boards (or under
        # CUDA_DEVICE_ORDER=PCI_BUS_ID)
        def one(v):
            return (
                nvml.nvmlDeviceGetHandleByIndex(int(v))
                if v.isdigit()
                else nvml.nvmlDeviceGetHandleByUUID(v.encode())
            )

        handles = tuple(one(v) for v in visible[:count])
        for h in handles:
            nvml.nvmlDeviceGetTotalEnergyConsumption(h)
        return (nvml, handles) if handles else (None, ())
    except (
        Exception
    ):  # not installed, no driver, a board older than Volta: NVML raises a type of its own for each
        return None, ()


def joules(count: int) -> float | None:
    """Energy since the driver was loaded, summed over the `count` devices of this process;
    differences mean something, the value does not.

    nvmlDeviceGetTotalEnergyConsumption counts millijoules of the whole board (Volta and newer), and
    is renewed every 20 to 100 ms.
    """
    nvml, handles = _boards(count)
    try:
        return (
            sum(nvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in handles) / 1e3
            if handles
            else None
        )
    except Exception:  # the board has gone
        return None


class Gauge:
    """What the `count` devices of this process have used since the gauge was made, and `before`
    that; unknown if either is. `share`: of what was used since, one part in so many is told.
    """

    def __init__(self, count: int, before: float | None = 0.0):
        self._count, self._before, self._started = count, before, joules(count)
        self.share = 1.0

    def total(self) -> float | None:
        """Joules."""
        now = (
            joules(self._count) if self._before is not None and self._started is not None else None
        )
        return None if now is None else self._before + (now - self._started) / self.share

    def record(self) -> dict | None:
        """What a result says of the energy of its training loop."""
        total, s = self.total(), "s" * (self._count > 1)
        return (
            None
            if total is None
            else {
                "joules": total,
                "source": f"measured by NVML, whole boards, {self._count} device{s}",
            }
        )
