"""The section of a study of arms other than dense and MoE: one panel for losses, one for
differences from the reference, by size.
"""

import matplotlib.pyplot as plt
import matplotlib.ticker

from experiments.laws.comparisons.moe_gaps import RATIOS
from experiments.report import elements, plotting
from experiments.report.elements import esc, f4, span, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE

UNBROKEN = {ord(" "): "\u00a0", ord("-"): "\u2011"}  # a name stays on one line


def _bars(ax, x, style, value, interval):
    error = plotting.bars([value], [interval])
    ax.errorbar(x, value, error, fmt=style.mark, color=style.colour, ms=6, lw=1.3, capsize=4)


def _cell(r: dict) -> tuple:
    return r["budget"] or 0, r["asked"] or 0, r["size"]


def _ticks(cells: list[tuple]) -> list[str]:
    """Sizes; where there are several budgets or token counts, these too."""
    if len({c[:2] for c in cells}) == 1:
        return [str(size) for *_, size in cells]

    def what(budget, tokens):
        return f"{budget:.2g} FLOPs" if budget else f"{tokens:.2g} tokens"

    return [f"{size}\n{what(budget, tokens)}" for budget, tokens, size in cells]


def draw(rows: list[dict], dial: str, unit: str) -> str:
    """Points are means over seeds with 95% Student intervals, side by side in each cell."""
    cells = sorted({_cell(r) for r in rows})
    families = list(dict.fromkeys(r["family"] for r in rows))
    styles = plotting.styles(families)
    with plt.rc_context(STYLE):
        fig, axes = plotting.canvas(2, height=4.2)
        for r in rows:
            apart = min(0.16, 0.9 / len(families))
            shift = (families.index(r["family"]) - (len(families) - 1) / 2) * apart
            x = cells.index(_cell(r)) + shift
            _bars(axes[0], x, styles[r["family"]], r["loss"], r["interval"])
            if r["gap"] is not None:
                _bars(axes[1], x, styles[r["family"]], r["gap"], r["gap_interval"])
        for f in families:
            style, name = styles[f], LABEL.get(f, f)
            axes[0].plot([], [], marker=style.mark, color=style.colour, ls="none", label=name)
        axes[1].axhline(0, color="#8a919c", lw=1)
        for ax in axes:
            many = len(cells) > (6 if len({c[:2] for c in cells}) == 1 else 3)
            ax.set_xticks(range(len(cells)), _ticks(cells), fontsize=7 if many else None)
            ax.tick_params(axis="x", rotation=90 if many else 0)
            ax.set(xlabel=dial, xlim=(-0.6, len(cells) - 0.4))
            ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        base = rows[0]["reference"]
        axes[0].set(title="loss", ylabel=f"validation loss ({unit})")
        axes[1].set(title=f"minus {LABEL.get(base, base)}, seed by seed", ylabel=unit)
        if len(families) < 6:
            axes[0].legend(fontsize=9)
        else:  # no corner is free of points
            names = axes[0].get_legend_handles_labels()
            fig.legend(*names, loc="outside lower center", ncols=6, fontsize=8)
        return plotting.svg(fig)


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


def _same(rows, c: str, contexts: bool) -> str:
    """What the arms of a cell have in common, as measured against the reference. Windows of other
    lengths are others.
    """
    own = [r for r in rows if r["gap"] is not None]
    if not own:
        return "no cell and seed is in two arms"
    spread = {k: (min(r[k] for r in own), max(r[k] for r in own)) for k in RATIOS}
    text = {k: f"x{low:.3f} to {high:.3f}" for k, (low, high) in spread.items()}
    if contexts:
        tokens = f"{text['tokens_ratio']} as many tokens"
    elif spread["tokens_ratio"] == (1, 1):
        tokens = "the same tokens in the same order"
    else:
        tokens = f"{text['tokens_ratio']} of its tokens in the same order"
    return (
        f"{tokens}, the same initial values wherever parameters agree; active"
        f" parameters {text['active_ratio']} of the reference's, {c} FLOPs {text['flops_ratio']}"
    )


def section(results, curves, a) -> str:
    rows = a.get("arms") or []
    if (
        not rows or a["gaps"] and not {r["family"] for r in rows} - {"dense", "moe"}
    ):  # which have sections of their own
        return ""
    many = any(r["budget"] for r in rows)
    columns = ["arm", a["dial"], *["budget"] * many, "D (tokens)", "N total", "seeds", "loss"]
    columns += ["95%", "difference", "95%", "active", "FLOPs"]
    data = [
        [
            LABEL.get(r["family"], r["family"]).translate(UNBROKEN),
            r["size"],
            *[f"{r['budget']:.3g}" if r["budget"] else ""] * many,
            f"{r['tokens']:,}",
            f"{r['parameters']:,}",
            r["seeds"],
            f4(r["loss"]),
            span(r["interval"], 3),
            "" if r["gap"] is None else f"{r['gap']:+.4f}",
            span(r["gap_interval"], 3),
            *("" if r["gap"] is None else f"x{r[k]:.3f}" for k in RATIOS[:2]),
        ]
        for r in rows
    ]
    base = rows[0]["reference"]
    reading = (
        "Means over seeds; bars and brackets are 95% Student intervals over them. Differences are"
        f" taken seed by seed against {esc(LABEL.get(base, base))}:"
        f" {esc(_same(rows, a['c_convention'], bool(a.get('contexts'))))}. {_verdicts(rows)}."
    )
    return elements.figure_section(
        "Arms against each other",
        reading,
        draw(rows, a["dial"], a["loss_unit"]),
        table(columns, data),
        opened=len(rows) <= 40,
    )
