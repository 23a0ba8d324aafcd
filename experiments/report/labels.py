"""Names of arms, and numbers, for people."""

LABEL = {
    "dense": "dense",
    "moe": "mixture of experts",
    "moe_8_1": "8 experts, top-1",
    "moe_32_4": "32 experts, top-4",
    "moe_64_8": "64 experts, top-8",
}


def number(n: float) -> str:
    """1234567 as 1.23M."""
    n = float(f"{n:.3g}")
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.3g}"


def spread(value, interval) -> str:
    """0.512 [0.401, 0.633]; in words where there is no value."""
    if value is None:
        return "not identified by these runs"
    return f"{value:.3f}" + (
        f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else " [no interval]"
    )
