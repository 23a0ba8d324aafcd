"""The section of a study of contexts: loss against the length of the windows, and what each arm
gains over its shortest one.
"""

import matplotlib.pyplot as plt
import matplotlib.ticker

from experiments.report import elements, plotting
from experiments.report.elements import f4, span, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE


def draw(rows: list[dict], unit: str) -> str:
    """A line for each arm and size; bars are 95% Student intervals over seeds."""
    lines = list(dict.fromkeys((r["arm"], r["size"], r["budget"], r["tokens"]) for r in rows))
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    styles = plotting.styles(arms)
    cells = {line[1:3] for line in lines}
    with plt.rc_context(STYLE):
        fig, axes = plotting.canvas(2, height=4.0)
        for line in lines:
            own = [r for r in rows if (r["arm"], r["size"], r["budget"], r["tokens"]) == line]
            style = styles[line[0]]
            name = LABEL.get(line[0], line[0]) + (f", {line[1]}" if len(cells) > 1 else "")
            for ax, value, around in (
                (axes[0], "loss", "interval"),
                (axes[1], "gain", "gain_interval"),
            ):
                shown = [r for r in own if r[value] is not None]
                y = [r[value] for r in shown]
                bars = plotting.bars(y, [r[around] for r in shown])
                form = {"color": style.colour, "ls": style.line, "marker": style.mark}
                x = [r["context"] for r in shown]
                ax.errorbar(x, y, bars, **form, ms=5, lw=1.4, capsize=3, label=name)
        axes[1].axhline(0, color="#8a919c", lw=1)
        lengths = sorted({r["context"] for r in rows})
        for ax in axes:
            ax.set(xscale="log", xlabel="context (tokens)")
            ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            ax.set_xticks(lengths, [f"{t:,}" for t in lengths])
        axes[0].set(title="loss", ylabel=f"validation loss ({unit})")
        axes[1].set(title=f"below its loss at {min(lengths):,} tokens, seed by seed", ylabel=unit)
        axes[0].legend(fontsize=9)
        return plotting.svg(fig)


def section(results, curves, a) -> str:
    rows = a.get("contexts") or []
    if not rows:
        return ""
    data = [
        [
            LABEL.get(r["arm"], r["arm"]),
            r["size"],
            f"{r['context']:,}",
            f"{r['tokens']:,}",
            r["seeds"],
            f4(r["loss"]),
            span(r["interval"], 3),
            "" if r["gain"] is None else f"{r['gain']:+.4f}",
            span(r["gain_interval"], 3),
        ]
        for r in rows
    ]
    columns = ["arm", a["dial"], "context", "D (tokens)", "seeds", "loss", "95%", "gain", "95%"]
    reading = (
        "The same model on longer windows, with as many tokens in every batch and in all. The gain"
        " is its loss at the shortest context minus that at this one, seed by seed: above zero,"
        " context helps. A token late in a long window has more context than any of a short one,"
        " and one early in it no more. Bars and brackets: 95% Student intervals over seeds."
    )
    return elements.figure_section(
        "What context buys", reading, draw(rows, a["loss_unit"]), table(columns, data), opened=True
    )
