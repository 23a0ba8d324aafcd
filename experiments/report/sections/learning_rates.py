"""The section on learning rates: the verdict of every size, and where the sweep has brackets, loss
against rate.
"""

import matplotlib.pyplot as plt
import numpy as np

from experiments.report import plotting
from experiments.report.elements import esc, f4, span, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE
from experiments.report.sections.checklist import rates_by_size


def _cell(r: dict) -> tuple:
    """Which bracket a row belongs to. At one budget a size has its tokens."""
    return r["family"], r["budget"] or 0, 0 if r["budget"] else r["tokens"], r["size"]


def _spent(budget, tokens) -> str:
    return f"{budget:.3g} FLOPs" if budget else f"{tokens:,} tokens"


def _draw(rows: list[dict], dial: str, unit: str) -> str:
    """One panel for each family: mean loss over seeds against the multiple of the ladder's rate, a
    line for each size.
    """
    families = list(dict.fromkeys(r["family"] for r in rows))
    with plt.rc_context(STYLE):
        fig, axes = plotting.panels(len(families), sharey=True, height=4.2)
        wide = len(families) <= 4
        for ax, family in zip(axes, families):
            cells = sorted({_cell(r)[1:] for r in rows if r["family"] == family})
            many = len({c[:2] for c in cells}) > 1
            for (budget, tokens, size), colour in zip(cells, plotting.shades(family, len(cells))):
                own = [r for r in rows if _cell(r) == (family, budget, tokens, size)]
                x, y = ([r[k] for r in own] for k in ("multiplier", "loss"))
                spans = np.array([r["interval"] or (r["loss"], r["loss"]) for r in own]).T
                label = f"{dial} {size}" + (f", {_spent(budget, tokens)}" if many else "")
                ax.errorbar(
                    x,
                    y,
                    np.abs(spans - y),
                    fmt="o-",
                    color=colour,
                    lw=1.4,
                    ms=5,
                    capsize=3,
                    label=label,
                )
                best = next(r for r in own if r["best"])
                ax.plot(
                    best["multiplier"],
                    best["loss"],
                    "*",
                    color=colour,
                    ms=14,
                    mec="white",
                    mew=0.8,
                    zorder=5,
                )
            ticks = sorted({r["multiplier"] for r in rows})
            ax.set(
                xscale="log",
                title=LABEL.get(family, family),
                xlabel="learning rate over the ladder's" if wide else "",
            )
            ax.set_xticks(ticks, [f"x{t:g}" for t in ticks])
            ax.minorticks_off()
            few = len(cells) <= 6
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.3)}
            if wide:
                ax.legend(fontsize=9 if few else 7, **({} if few else below))
        axes[0].set_ylabel(f"validation loss ({unit})")
        return plotting.svg(fig)


def _brackets(rows: list[dict], dial: str, unit: str) -> str:
    """Means over seeds, and by how much another rate beats the rule."""
    better = [r for r in rows if r["gap_interval"] and r["gap_interval"][1] < 0]
    cells = {_cell(r) for r in rows}
    kept = [r for r in rows if r["best"] and r["multiplier"] == 1]
    text = (
        "Means over seeds with 95% Student intervals; a star is the best mean. The rule (x1) is"
        f" the best mean in {len(kept)} of {len(cells)} brackets; another rate is better than it,"
        " seed by seed and beyond the interval, in"
        f" {len({_cell(r) for r in better})}."
    )
    data = [
        [
            LABEL.get(r["family"], r["family"]),
            r["size"],
            _spent(r["budget"], r["tokens"]),
            f"x{r['multiplier']:g}" + (" best" if r["best"] else ""),
            r["seeds"],
            f4(r["loss"]),
            span(r["interval"]),
            "" if r["gap"] is None or r["multiplier"] == 1 else f"{r['gap']:+.4f}",
            "" if r["multiplier"] == 1 else span(r["gap_interval"]),
        ]
        for r in rows
    ]
    columns = ["family", dial, "budget", "rate", "seeds", "loss", "95%", "minus x1", "95%"]
    return (
        f'<p class=read style="margin-top:14px">{esc(text)}</p>{_draw(rows, dial, unit)}<details>'
        f"<summary>the data of this figure</summary>{table(columns, data)}</details>"
    )


def _moves(rows: list[dict], dial: str) -> str:
    """The best rate of every size, and how far it moves."""
    several = {(r["family"], r["budget"], r["budget"] or r["tokens"]) for r in rows}
    if len(rows) < len(several) * 2:
        return ""
    data = [
        [
            LABEL.get(r["family"], r["family"]),
            r["size"],
            _spent(r["budget"], r["tokens"]),
            f"{r['best']:.4g}" + (" EDGE" if r["edge"] else ""),
            "" if r["vertex"] is None else f"{r['vertex']:.4g}",
            f"x{r['moved']:.3g}",
            "" if r["kept"] is None else f"{r['kept']:+.4f}",
        ]
        for r in rows
    ]
    columns = ["family", dial, "budget", "best rate", "between", "moved", "if kept"]
    text = (
        "The best rate of every size. Between: the least of the parabola through it and its"
        " neighbours. Moved: over that of the smallest size. If kept: what the smallest size's best"
        " rate costs here, where it was tried."
    )
    return f'<p class=read style="margin-top:14px">{esc(text)}</p>{table(columns, data)}'


def _seeds(a) -> str:
    """Every bracket by itself."""
    rows = [
        [
            v["family"],
            v["size"],
            _spent(v["budget"], v["tokens"]),
            v["seed"],
            v["trials"],
            f"x{v['best_multiplier']:g}",
            "EDGE" if v["edge"] else "inside",
            "  ".join(f"{k}: {x:.4f}" for k, x in v["losses"].items()),
        ]
        for v in a["learning_rates"]
    ]
    data = table(
        ["family", a["dial"], "budget", "seed", "trials", "best", "where", "loss by multiplier"],
        rows,
    )
    return f"<details><summary>every bracket by itself</summary>{data}</details>"


def section(results, curves, a) -> str:
    brackets = (
        _moves(a.get("best_rates") or [], a["dial"])
        + _brackets(a["brackets"], a["dial"], a["loss_unit"])
        + _seeds(a)
        if a.get("brackets")
        else ""
    )
    return (
        "<section><h2>Learning rates</h2><p class=read>The verdict of every size: whether its rate"
        " was bracketed in this sweep (an optimum at the edge of its bracket is flagged: the true "
        "one may lie outside), or comes from the ladder's rule (experiments/planning/ladder.py),"
        " which was fitted to brackets with the same number of trials for both families before they"
        " were compared"
        f" (LOG.md).</p>{table(['family', a['dial'], 'peak rate', 'verdict'], rates_by_size(results, a), 4)}{brackets}</section>"  # noqa: E501
    )
