"""The section of a study of batches: loss against the batch at equal tokens, the law behind it, and
the critical batch of every size and length.
"""

import matplotlib.pyplot as plt

from experiments.report import elements, plotting
from experiments.report.elements import esc, f4, table
from experiments.report.labels import number
from experiments.report.plotting import STYLE


def draw(found: dict, dial: str, unit: str) -> str:
    """Losses of every size and length with the law's curves; and critical batches over tokens."""
    cells = found["cells"]
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
        for size in sizes:
            own = [c for c in cells if c["size"] == size]
            x = [c["tokens"] * (1 + 0.04 * sizes.index(size)) for c in own]  # beside each other
            for name, around, colour, label in (
                ("critical", "interval", plotting.BLUE, "critical batch"),
                ("allowed", "allowed_interval", plotting.ORANGE, f"{found['overhead']:.0%} more"),
            ):
                y = [c[name] for c in own]
                bars = plotting.bars(y, [c[around] for c in own])
                form = {"fmt": f"{marks[size]}-", "color": colour, "ms": 5, "lw": 1.2}
                label = f"{label}, {dial} {size}"
                right.errorbar(x, y, bars, capsize=3, label=label, **form)
        right.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="batch (tokens)")
        right.set_title("how large a batch may be")
        right.legend(fontsize=8)
        for ax, values in ((left, [b for c in cells for b in c["batches"]]), (right, tokens)):
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
    critical = [
        [c["size"], f"{c['tokens']:,}", f"{c['critical']:,.0f}", elements.count_span(c["interval"])]
        + [f"{c['allowed']:,.0f}", elements.count_span(c["allowed_interval"])]
        for c in found["cells"]
    ]
    reading = (
        f"The same tokens in larger batches are fewer updates. Law: {esc(found['formula'])}"
        f" ({esc(found['source'])}). At the critical batch a run wants twice the tokens of small"
        f" batches, at the other {found['overhead']:.0%} more. Verdict: {esc(found['verdict'])}."
        f" Brackets: 95% intervals of resampled runs. {found['left_out']} runs of few updates are"
        " left out of the fit."
    )
    columns = [a["dial"], "tokens", "critical batch", "95%", "allowed batch", "95%"]
    data = table(columns, critical, 0) + table([a["dial"], "tokens", "batch", "loss"], rows, 0)
    return elements.figure_section(
        "Batches", reading, draw(found, a["dial"], a["loss_unit"]), data, opened=True
    )
