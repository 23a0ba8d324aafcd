"""The section of a study of batches: loss against the batch at equal tokens, the law behind it, and
the critical batch of every length.
"""

import matplotlib.pyplot as plt

from experiments.report import elements, plotting
from experiments.report.elements import esc, f4, table
from experiments.report.labels import number
from experiments.report.plotting import STYLE


def draw(found: dict, dial: str, unit: str) -> str:
    """Losses of every size and length with the law's curves; and critical batches over tokens."""
    cells, lengths = found["cells"], found["lengths"]
    tokens = sorted({c["tokens"] for c in cells})
    sizes = sorted({c["size"] for c in cells})
    shades = dict(zip(tokens, plotting.shades("dense", len(tokens))))
    marks = dict(zip(sizes, "osD^v<>"))
    with plt.rc_context(STYLE):
        fig, (left, right) = plotting.canvas(2, height=4.4)
        for c in cells:
            colour, mark = shades[c["tokens"]], marks[c["size"]]
            left.plot(c["grid"], c["fitted"], color=colour, lw=1.2)
            label = f"{dial} {c['size']}, {number(c['tokens'])} tokens"
            left.plot(c["batches"], c["losses"], mark, color=colour, ms=5, label=label)
        left.set(xscale="log", xlabel="batch (tokens)", ylabel=f"validation loss ({unit})")
        left.set_title("loss at the best of the rates, and the law")
        left.legend(fontsize=8)
        x = [c["tokens"] for c in lengths]
        for name, around, colour, label in (
            ("critical", "interval", plotting.BLUE, "critical batch"),
            (
                "allowed",
                "allowed_interval",
                plotting.ORANGE,
                f"{found['overhead']:.0%} more tokens",
            ),
        ):
            y = [c[name] for c in lengths]
            bars = plotting.bars(y, [c[around] for c in lengths])
            right.errorbar(x, y, bars, fmt="o-", color=colour, ms=5, lw=1.4, capsize=3, label=label)
        right.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="batch (tokens)")
        right.set_title("how large a batch may be")
        right.legend(fontsize=9)
        for ax, values in ((left, [b for c in cells for b in c["batches"]]), (right, x)):
            plotting.log_ticks(ax.xaxis, min(values), max(values))
        return plotting.svg(fig)


def section(results, curves, a) -> str:
    found = a.get("critical_batch")
    if not found:
        return ""
    if not found["cells"]:
        return f"<section><h2>Batches</h2><p class=read>{esc(found['verdict'])}</p></section>"
    rows = [
        [c["size"], f"{c['tokens']:,}", f"{b:,.0f}", f4(loss)]
        for c in found["cells"]
        for b, loss in zip(c["batches"], c["losses"], strict=True)
    ]
    lengths = [
        [f"{c['tokens']:,}", f"{c['critical']:,.0f}", elements.count_span(c["interval"])]
        + [f"{c['allowed']:,.0f}", elements.count_span(c["allowed_interval"])]
        for c in found["lengths"]
    ]
    reading = (
        f"The same tokens in larger batches are fewer updates. Law: {esc(found['formula'])}"
        f" ({esc(found['source'])}). At the critical batch a run wants twice the tokens of small"
        f" batches, at the other {found['overhead']:.0%} more. Verdict: {esc(found['verdict'])}."
        " Brackets: 95% intervals of resampled runs."
    )
    columns = ["training tokens", "critical batch", "95%", "allowed batch", "95%"]
    data = table(columns, lengths, 0) + table([a["dial"], "tokens", "batch", "loss"], rows, 0)
    return elements.figure_section(
        "Batches", reading, draw(found, a["dial"], a["loss_unit"]), data, opened=True
    )
