"""N_opt and D_opt against compute, with their power laws."""

import matplotlib
import matplotlib.lines
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from experiments.laws.published.constants import ALLOCATIONS
from experiments.report.elements import count_span, f4, figure_section, span, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE, canvas, log_ticks, styles, svg


def _parabolas(a: dict) -> str:
    rows = [
        [
            family,
            f"{q['flops']:.4g}",
            f"{q['n_opt']:,.0f}" if q["interior"] else "no interior minimum",
            count_span(q.get("n_opt_interval")),
            f"{q['d_opt']:,.0f}" if q["interior"] else "",
            count_span(q.get("d_opt_interval")),
            f4(q["loss_opt"]) if q["interior"] else "",
            span(q.get("loss_opt_interval")),
        ]
        for family, f in a["families"].items()
        for q in f["parabolas"]
    ]
    return table(
        [
            "family",
            f"C ({a['c_convention']})",
            f"N_opt ({a['n_convention']})",
            "95%",
            "D_opt (tokens)",
            "95%",
            "loss",
            "95%",
        ],
        rows,
    )


def draw(analysis) -> str:
    """N_opt and D_opt against C with their power laws."""
    with plt.rc_context(STYLE):
        arms = len(analysis["families"])
        fig, axes = canvas(2, height=5.2 + 0.22 * max(0, arms - 2))  # a line of the legend each
        drawn = styles(list(analysis["families"]))
        for ax, field, name in (
            (axes[0], "n", f"N_opt: {analysis['n_means']}"),
            (axes[1], "d", "D_opt: training tokens"),
        ):
            seen = []
            for k, (family, f) in enumerate(analysis["families"].items()):
                rows = [q for q in f["parabolas"] if q["interior"]]
                if not rows:
                    continue
                c, y = (np.array([q[key] for q in rows]) for key in ("flops", f"{field}_opt"))
                spans = [q.get(f"{field}_opt_interval") or (v, v) for q, v in zip(rows, y)]
                error = np.array([[max(0, v - s[0]), max(0, s[1] - v)] for v, s in zip(y, spans)]).T
                law, exponent = f[f"{field}_law"], f[f"{field}_exponent"]
                span = f.get(f"{field}_exponent_interval")
                around = f" [{span[0]:.2f}, {span[1]:.2f}]" if span else ""
                power = f": C^{exponent:.2f}{around}" if law else ""
                ax.errorbar(
                    c * (1 + 0.02 * k),
                    y,
                    error,
                    fmt=drawn[family].mark,
                    color=drawn[family].colour,
                    ms=6,
                    lw=1.2,
                    capsize=3,
                    label=LABEL.get(family, family) + power,
                )
                seen += [*y, *[s[0] for s in spans], *[s[1] for s in spans]]
                if law:
                    grid = np.geomspace(c.min() / 1.3, c.max() * 1.3, 50)
                    line = np.exp(law[0]) * grid ** law[1]
                    ax.plot(grid, line, color=drawn[family].colour, lw=1.4)
            _published(ax, field, seen, analysis)
            ax.set(
                xscale="log",
                yscale="log",
                xlabel=f"C: training FLOPs ({analysis['c_convention']})",
                ylabel=name,
            )
            budgets = [q["flops"] for f in analysis["families"].values() for q in f["parabolas"]]
            ax.xaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:.0e}".replace("e+", "e"))
            )
            ax.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            ax.set_xticks(
                budgets[: len(next(iter(analysis["families"].values()))["parabolas"])], minor=False
            )
            ax.xaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:.3g}".replace("e+", "e"))
            )
            if seen:
                log_ticks(ax.yaxis, min(seen), max(seen))
                ax.set_ylim(min(seen) / 1.5, max(seen) * 1.6)
            _legend(ax)
        return svg(fig)


def _legend(ax):
    """The arms, then what was published: below, where no point is."""
    entries = sorted(
        zip(*ax.get_legend_handles_labels(), strict=True),
        key=lambda e: isinstance(e[0], matplotlib.lines.Line2D),
    )
    if entries:
        ax.legend(*zip(*entries), loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8.5)


def _published(ax, field, seen, analysis):
    """Published exponents as lines through the middle of these minima: slopes can be compared,
    prefactors belong to other data.
    """
    rows = [q for f in analysis["families"].values() for q in f["parabolas"] if q["interior"]]
    if not rows:
        return
    c, y = (np.exp(np.mean([np.log(q[k]) for q in rows])) for k in ("flops", f"{field}_opt"))
    grid = np.array([min(q["flops"] for q in rows) / 1.3, max(q["flops"] for q in rows) * 1.3])
    for (name, p), style in zip(ALLOCATIONS.items(), ("-", "--", "-.", ":", (0, (1, 3)))):
        slope = getattr(p, field)
        ax.plot(
            grid,
            y * (grid / c) ** slope,
            ls=style,
            color="#8a919c",
            lw=1,
            zorder=1,
            label=f"{name}: C^{slope:.2f} ({p.mark})",
        )


def section(results, curves, a) -> str:
    if not any(f["parabolas"] for f in a["families"].values()):
        return ""
    reading = (
        "Minima of the parabolas against compute; bars and brackets are 95% bootstrap intervals."
        " Grey: published exponents, drawn through the middle of these minima for their slope"
        " alone; their N and C are counted by the papers' conventions, and each carries its mark of"
        " verification."
    )
    inside = any(q["interior"] for f in a["families"].values() for q in f["parabolas"])
    drawn = draw(a) if inside else "<p class=read>No budget has a minimum inside its sizes.</p>"
    return figure_section(
        "Compute-optimal size and tokens", reading, drawn, _parabolas(a), opened=True
    )
