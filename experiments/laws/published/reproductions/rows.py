"""A published number beside the reproduced one, and whether they agree."""

from typing import NamedTuple


class Row(NamedTuple):
    """One number, printed and reproduced. `agrees`: None where there is nothing to agree with."""

    what: str
    published: float | None
    mark: str
    reproduced: float | None
    interval: list | None = None
    tolerance: float | None = None
    agrees: bool | None = None

    @property
    def verdict(self) -> str:
        return "" if self.agrees is None else "agrees" if self.agrees else "DIFFERS"


def near(what, p, mark, value, tolerance, interval=None) -> Row:
    return Row(what, p, mark, value, interval, tolerance, bool(abs(value - p) <= tolerance))


def overlap(what, printed, mark, value, interval) -> Row:
    """The reproduced interval overlaps the printed one."""
    ok = interval is not None and interval[0] <= printed[1] and interval[1] >= printed[0]
    return Row(
        f"{what}, 95% interval {printed[0]:g} to {printed[1]:g}",
        None,
        mark,
        value,
        interval,
        None,
        bool(ok),
    )
