"""Which law predicts the larger budgets from the smaller ones, and does the error shrink?"""

import matplotlib.pyplot as plt
import matplotlib.ticker

from experiments.report import plotting
from experiments.report.elements import esc, figure_section, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE

COLOURS = (plotting.BLUE, plotting.ORANGE, plotting.GREEN)


def draw(found: dict, c: str) -> str:
    """Mean error on the best runs above, against the compute that a law was fitted below."""
    with plt.rc_context(STYLE):
        fig, axes = plotting.panels(len(found), height=3.6, sharey=True)
        for ax, (family, r) in zip(axes, found.items(), strict=True):
            for (law, own), colour, mark in zip(r["laws"].items(), COLOURS, "osD", strict=True):
                xy = [(x, 100 * v["error"]) for x, v in zip(r["below"], own["rollouts"]) if v]
                if xy:
                    ax.plot(*zip(*xy), marker=mark, color=colour, ms=5, lw=1.3, label=law)
            ax.set(xscale="log", xlabel=f"fitted up to C ({c})", title=LABEL.get(family, family))
            if r["below"]:
                ax.set_xticks(r["below"], [f"{v:.2g}" for v in r["below"]], fontsize=8)
                ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
                ax.set_xlim(min(r["below"]) / 1.4, max(r["below"]) * 1.4)
        axes[0].set_ylabel("mean error above (%)")
        axes[0].set_ylim(bottom=0)
        axes[0].legend(fontsize=8)
        return plotting.svg(fig)


def section(results, curves, a) -> str:
    found = {k: r for k, r in (a.get("rollouts") or {}).items() if r}
    if not found:
        return (
            "<section><h2>Which law extrapolates best?</h2><p class=read>Rollouts need three"
            " budgets (or nine runs of different compute) of one arm: two to fit, one to"
            " predict.</p></section>"
        )
    said = "".join(
        f"<p class=read><b>{esc(LABEL.get(k, k))}</b>: {esc(r['words'])}.</p>"
        for k, r in found.items()
    )
    reading = (
        "Each law is fitted to the runs below a compute, and tested on the best run of each budget"
        " above it, for a rising compute. chinchilla3 and kaplan_nd read all runs (N and D);"
        " power_floor reads the best run of each budget (C). The score is the mean error over the"
        " rollouts in which all laws could be fitted. Few rollouts rank laws by chance: read the"
        " curves."
    )
    rows = [
        [family, law, f"{x:.3g}", v["n_fit"], v["n_test"], f"{v['error']:.2%}", f"{v['bias']:+.2%}"]
        for family, r in found.items()
        for law, own in r["laws"].items()
        for x, v in zip(r["below"], own["rollouts"])
        if v
    ]
    columns = ["arm", "law", f"fitted below C ({a['c_convention']})", "runs fitted", "tested"]
    rows_why = [
        [family, law, own["why"]]
        for family, r in found.items()
        for law, own in r["laws"].items()
        if own["why"]
    ]
    data = table([*columns, "mean error", "bias"], rows, 2)
    data += table(["arm", "law", "where it was not fitted"], rows_why, 3) if rows_why else ""
    shown = {k: r for k, r in found.items() if r["best"]}
    figure = draw(shown, a["c_convention"]) if shown else ""
    title = "Which law extrapolates best?"
    return figure_section(title, reading, said + figure, data)
