"""The section of a study of architectures: the best of each arm against the reference at equal
FLOPs, the compute that the reference needs for it, exponents, speed and decoding state.
"""

import matplotlib.pyplot as plt
import matplotlib.ticker

from experiments.report import elements, plotting
from experiments.report.elements import esc, span, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE


def _label(family: str) -> str:
    return LABEL.get(family, family)


def draw(rows: list[dict], unit: str) -> str:
    """Left the gap at every budget, right the compute multiplier; bars are 95% intervals."""
    arms = [r for r in rows if r["gaps"] or r["multipliers"]]
    styles = plotting.styles([r["family"] for r in rows])
    panels = (("gaps", "difference", 0), ("multipliers", "leverage", 1))
    with plt.rc_context(STYLE):
        fig, axes = plotting.canvas(2, height=4.4)
        for ax, (what, field, even) in zip(axes, panels, strict=True):
            for k, r in enumerate(arms):
                style = styles[r["family"]]
                shift = 1.025 ** (k - (len(arms) - 1) / 2)
                # a multiplier far off the curve is no measurement, and would flatten the others
                own = [e for e in r[what] if what == "gaps" or e["leverage"] and _near(e)]
                x, y = [e["flops"] * shift for e in own], [e[field] for e in own]
                bars = plotting.bars(y, [e["interval"] for e in own])
                form = {"color": style.colour, "ls": style.line, "marker": style.mark}
                ax.errorbar(x, y, bars, **form, ms=5, lw=1.2, capsize=3, label=_label(r["family"]))
            ax.axhline(even, color="#8a919c", lw=1)
            flops = sorted({q for r in rows for q in r["budgets"]})
            ax.set(xscale="log", xlabel="training FLOPs")
            ax.xaxis.set_major_locator(matplotlib.ticker.FixedLocator(flops))
            ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            ax.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:.2g}"))
            ax.set_xlim(min(flops) / 1.5, max(flops) * 1.5)
        base = _label(rows[0]["reference"])
        axes[0].set(title=f"best of each minus {base}, equal FLOPs", ylabel=unit)
        axes[1].set(title="compute multiplier", ylabel=f"FLOPs of {base} over the arm's")
        names = axes[0].get_legend_handles_labels()
        fig.legend(*names, loc="outside lower center", ncols=6, fontsize=8)
        return plotting.svg(fig)


def _near(e: dict) -> bool:
    return 1e-2 < e["leverage"] < 1e2


def _at(rows: list[dict], budget, field: str, digits: int = 3) -> list[str]:
    one = next((e for e in rows if e["budget"] == budget), None)
    if one is None or one[field] is None:
        return ["", ""]
    value = one[field]
    text = f"{value:+.{digits}f}" if field == "difference" else f"x{value:.3g}"
    return [text, span(one["interval"], digits)]


def section(results, curves, a) -> str:
    rows = a.get("frontiers") or []
    if not rows:
        return ""
    budgets = sorted({e["budget"] for r in rows for e in r["gaps"]})
    found = [
        {**r, "budgets": [q["flops"] for q in a["families"][r["family"]]["parabolas"]]}
        for r in rows
    ]
    columns = ["arm"]
    for b in budgets:
        columns += [f"gap at {b:.3g}", "95%", "compute", "95%"]
    gaps, held = [], []
    for r in rows:
        line = [_label(r["family"])]
        for b in budgets:
            line += _at(r["gaps"], b, "difference") + _at(r["multipliers"], b, "leverage")
        gaps.append(line)
        line = [_label(r["family"])]
        for k in "nd":
            v = r[f"{k}_exponent"]
            line += ["" if v is None else f"{v:.2f}", span(r[f"{k}_exponent_interval"], 2)]
        line += ["" if r["tokens_per_s"] is None else f"{r['tokens_per_s']:,.0f}"]
        line += [f"{r[k]:,}" for k in ("state_per_sequence", "kv_cache_per_token")]
        held.append(line)
    costs = ["arm", "N_opt ~ C^", "95%", "D_opt ~ C^", "95%"]
    costs += ["tokens/s", "state (bytes)", "cache a token (bytes)"]
    base = esc(_label(rows[0]["reference"]))
    reading = (
        f"The minimum of each arm's isoFLOP curve against that of {base}, where both lie inside the"
        " sizes. Left, below zero: lower loss for the same FLOPs. Right, and in the columns"
        f" compute: the FLOPs that {base} would need for the arm's best loss, over the arm's, along"
        f" a straight line in log loss against log C through the minima of {base}; above one the"
        " arm is the better buy, and far from one it is an extrapolation. Tokens/s are of training,"
        f" the median over the runs of {esc(a['dial'])} {rows[0]['size']}, as measured where they"
        " ran; state and cache are bytes of one decoded sequence and of one token, counted there."
        " Bars and brackets: 95% intervals."
    )
    figure = draw(found, a["loss_unit"]) if any(r["gaps"] for r in rows) else ""
    return elements.figure_section(
        "Each arm's best at equal FLOPs",
        reading,
        figure,
        table(costs, held) + table(columns, gaps),
        opened=True,
    )
