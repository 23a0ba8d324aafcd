"""How the figures of a report look: colours, marks, axes, and SVG text with searchable labels."""

import contextlib
import io
import itertools
from typing import NamedTuple

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

BLUE, ORANGE, GREEN = "#3b6fb6", "#d1602a", "#2b8a57"
COLOUR = {"dense": BLUE, "moe": ORANGE, "sinusoidal": BLUE, "learned": ORANGE, "rope": GREEN}
COLOUR |= {"moe_8_1": BLUE, "moe_32_4": ORANGE, "moe_64_8": GREEN}
SHADES = {"dense": ("#9cbfe6", "#3b6fb6", "#17365f"), "moe": ("#f2b892", "#d1602a", "#6e2a0c")}
MORE = ("#7a4fb0", "#b0963b", "#3ba6b0", "#b5476f", "#6b7280", "#7a5c3e", "#4d7c0f", "#9f1239")
MARK = {"moe": "s", "learned": "s", "rope": "D", "moe_32_4": "s", "moe_64_8": "D"}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#8a919c",
    "axes.labelcolor": "#2c3440",
    "xtick.color": "#4a5361",
    "ytick.color": "#4a5361",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.hashsalt": "isoflop",
}


class Style(NamedTuple):
    """How an arm is drawn."""

    colour: str
    mark: str
    line: str


def styles(families: list[str]) -> dict[str, Style]:
    """A colour and a mark for each arm; an arm and the same with experts (`NAME_moe`) share the
    colour. Of two that would look alike, the later one gets another colour.
    """
    own = [COLOUR[f] for f in families if f in COLOUR]
    spare = itertools.cycle([c for c in (BLUE, ORANGE, GREEN, *MORE) if c not in own])
    colours: dict[str, str] = {}
    taken, out = set(), {}
    for f in families:
        stem, routed = f.removesuffix("_moe"), f.endswith("moe")
        mark = MARK.get(f, "s" if routed else "o")
        colour = COLOUR.get(f) or colours.get(stem) or COLOUR.get(stem) or next(spare)
        if (colour, mark) in taken:
            colour = next(spare)
        colours.setdefault(stem, colour)
        taken.add((colour, mark))
        out[f] = Style(colour, mark, "--" if routed else "-")
    return out


def bars(values: list[float], intervals: list) -> list[list[float]]:
    """How far each interval reaches below and above its value, for `errorbar`; no interval, no
    length.
    """
    ends = [i or (v, v) for v, i in zip(values, intervals, strict=True)]
    return [
        [max(0, v - low) for v, (low, _) in zip(values, ends, strict=True)],
        [max(0, high - v) for v, (_, high) in zip(values, ends, strict=True)],
    ]


_kept: list | None = None


@contextlib.contextmanager
def keeping():
    """Gives the list that every figure drawn inside is added to, as (SVG text, PDF bytes)."""
    global _kept
    _kept = []
    try:
        yield _kept
    finally:
        _kept = None


def svg(fig) -> str:
    out = io.StringIO()
    fig.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    if _kept is not None:
        pdf = io.BytesIO()
        fig.savefig(pdf, format="pdf", metadata={"CreationDate": None})
        _kept.append((text, pdf.getvalue()))
    plt.close(fig)
    return text[text.index("<svg") :]


def save(fig, path: str) -> None:
    """As a file of its own: SVG or PNG, by its name."""
    fig.savefig(path, dpi=130, metadata={"Date": None} if path.endswith(".svg") else None)
    plt.close(fig)


def canvas(columns=1, width=9.2, height=3.9, **kw):
    with plt.rc_context(STYLE):
        return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **kw)


def panels(n: int, height=3.9, **kw):
    """A figure of `n` panels, four in a row at most, and its axes in order."""
    if n <= 4:
        fig, axes = canvas(n, height=height, squeeze=False, **kw)
        return fig, axes[0]
    with plt.rc_context(STYLE):
        rows = -(-n // 4)
        size = (9.2, 2.5 * rows)
        fig, axes = plt.subplots(rows, 4, figsize=size, layout="constrained", squeeze=False, **kw)
    for ax in axes.flat[n:]:
        ax.axis("off")
    return fig, axes.flat[:n]


def shades(family: str, n: int) -> list:
    """`n` colours of a family, light to dark with the budget."""
    ramp = matplotlib.colors.LinearSegmentedColormap.from_list(
        family, SHADES.get(family, SHADES["dense"])
    )
    return [ramp(x) for x in (np.linspace(0, 1, n) if n > 1 else [0.5])]


def log_ticks(axis, low, high, most=9):
    """Ticks at 1, 2, 5 x 10^k, or more of them, as short numbers: a decade or less of sizes has no
    powers of ten to show.
    """
    decades = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    for steps in (
        (1, 2, 5),
        (1, 1.5, 2, 3, 5, 7),
        (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
    ):
        ticks = [
            m * 10.0**k for k in decades for m in steps if low * 0.8 <= m * 10.0**k <= high * 1.25
        ]
        if len(ticks) >= 3:
            break
    ticks = ticks[:: -(-len(ticks) // most)]
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: short(v)))


def short(v: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if 1 <= v / size < 1e4:
            return f"{v / size:.4g}{unit}"
    return f"{v:g}"
