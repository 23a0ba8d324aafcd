"""The section of a study of arms other than dense and MoE: one panel for losses, one for
differences from the reference, by size.
"""

import matplotlib.pyplot as plt
import matplotlib.ticker

from experiments.report import elements, figures
from experiments.report.elements import esc, f4, span, table
from experiments.report.figures import COLOUR, LABEL, MARK, STYLE


def _bars(ax, x, row, value, interval):
    error = [[value - interval[0]], [interval[1] - value]] if interval else None
    colour = COLOUR.get(row["family"], "#555")
    ax.errorbar(
        x, value, error, fmt=MARK.get(row["family"], "o"), color=colour, ms=6, lw=1.3, capsize=4
    )


def draw(rows: list[dict]) -> str:
    """Points are means over seeds with 95% Student intervals, side by side at each size."""
    sizes = sorted({r["size"] for r in rows})
    families = list(dict.fromkeys(r["family"] for r in rows))
    with plt.rc_context(STYLE):
        fig, axes = figures.canvas(2, height=4.2)
        for r in rows:
            shift = (families.index(r["family"]) - (len(families) - 1) / 2) * 0.16
            x = sizes.index(r["size"]) + shift
            _bars(axes[0], x, r, r["loss"], r["interval"])
            if r["gap"] is not None:
                _bars(axes[1], x, r, r["gap"], r["gap_interval"])
        for f in families:
            style = {"marker": MARK.get(f, "o"), "color": COLOUR.get(f, "#555"), "ls": "none"}
            axes[0].plot([], [], label=LABEL.get(f, f), **style)
        axes[1].axhline(0, color="#8a919c", lw=1)
        for ax in axes:
            ax.set_xticks(range(len(sizes)), [str(s) for s in sizes])
            ax.set(xlabel="d_model", xlim=(-0.6, len(sizes) - 0.4))
            ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        base = rows[0]["reference"]
        axes[0].set(title="loss", ylabel="validation loss (nats/token)")
        axes[1].set(
            title=f"difference from {LABEL.get(base, base)}, seed by seed", ylabel="nats/token"
        )
        axes[0].legend(fontsize=9)
        return figures.svg(fig)


def _verdicts(rows) -> str:
    """For each arm, in how many cells its interval lies on one side of zero."""
    out = []
    for family in dict.fromkeys(r["family"] for r in rows if r["gap"] is not None):
        own = [r for r in rows if r["family"] == family and r["gap_interval"]]
        below, above = (
            sum(r["gap_interval"][1] < 0 for r in own),
            sum(r["gap_interval"][0] > 0 for r in own),
        )
        out.append(
            f"<b>{esc(LABEL.get(family, family))}</b>: lower loss in {below} of {len(own)} cells,"
            f" higher in {above}, the sign is open in {len(own) - below - above}"
        )
    return "; ".join(out)


def _same(rows) -> str:
    """What the arms of a cell have in common: their tokens, or where those differ, their FLOPs."""
    cells = {}
    for r in rows:
        cells.setdefault(
            (r["size"], r["budget"], r["tokens"] if not r["budget"] else None), set()
        ).add(r["tokens"])
    return (
        "the same tokens"
        if all(len(c) == 1 for c in cells.values())
        else "tokens for the same FLOPs,"
    )


def section(results, curves, a) -> str:
    rows = a.get("arms") or []
    if (
        not rows or a["gaps"] and not {r["family"] for r in rows} - {"dense", "moe"}
    ):  # which have sections of their own
        return ""
    columns = [
        "arm",
        "d_model",
        "budget",
        "D (tokens)",
        "N total",
        "seeds",
        "loss",
        "95%",
        "difference",
        "95%",
    ]
    data = [
        [
            LABEL.get(r["family"], r["family"]),
            r["size"],
            f"{r['budget']:.3g}" if r["budget"] else "",
            f"{r['tokens']:,}",
            f"{r['parameters']:,}",
            r["seeds"],
            f4(r["loss"]),
            span(r["interval"]),
            "" if r["gap"] is None else f"{r['gap']:+.4f}",
            span(r["gap_interval"]),
        ]
        for r in rows
    ]
    base = rows[0]["reference"]
    reading = (
        "Means over seeds; bars and brackets are 95% Student intervals over them. Differences are"
        f" taken seed by seed against {esc(LABEL.get(base, base))}: {_same(rows)} in the same"
        f" order, the same initial values wherever parameters agree. {_verdicts(rows)}."
    )
    return elements.section(
        "Arms against each other", reading, draw(rows), table(columns, data), opened=True
    )
