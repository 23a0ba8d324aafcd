"""Loss against size, one curve for each compute budget."""

from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np

from experiments.laws.conventions import n_of
from experiments.report.elements import f4, figure_section, table, units
from experiments.report.labels import LABEL
from experiments.report.plotting import MARK, STYLE, log_ticks, panels, shades, svg


def _points(results, a) -> str:
    rows = [
        [
            r["family"],
            r["tags"].get("size"),
            f"{r['tags'].get('budget') or 0:.3g}",
            r["run"]["seed"],
            f"{n_of(r['parameters'], a['n_convention']):,}",
            f"{r['training_tokens']:,}",
            f"{r['flops'][a['c_convention']]:.5g}",
            f4(r["validation"]["loss"]),
            f4(r["validation"]["se"]),
        ]
        for r in results
    ]
    return table(["family", a["dial"], "budget", "seed", *units(a), "loss", "s.e."], rows)


def draw(analysis, results) -> str:
    """Loss against N at each budget, one panel per family, with the parabolas and their minima."""
    families = list(analysis["families"])
    with plt.rc_context(STYLE):
        fig, axes = panels(len(families), sharey=True)
        points, best = defaultdict(list), set(analysis.get("fitted") or ())
        for r in results:
            if r["validation"]["loss"] is not None and (not best or r["id"] in best):
                points[r["family"], r["tags"].get("budget")].append(
                    (n_of(r["parameters"], analysis["n_convention"]), r["validation"]["loss"])
                )
        every = [n for group in points.values() for n, _ in group]
        many = len(families) > 4
        for ax, family in zip(axes, families):
            rows = analysis["families"][family]["parabolas"]
            for q, colour in zip(rows, shades(family, len(rows))):
                xy = np.array(sorted(points[family, q["budget"]]))
                grid = np.geomspace(q["n_low"], q["n_high"], 200)
                c0, c1, c2 = q["coefficients"]
                ax.plot(
                    grid,
                    c0 + c1 * np.log(grid) + c2 * np.log(grid) ** 2,
                    color=colour,
                    lw=1.6,
                    label=f"{q['flops']:.3g} FLOPs",
                )
                if len(xy):
                    ax.plot(*xy.T, MARK.get(family, "o"), color=colour, ms=5)
                if q["interior"]:
                    span = q.get("n_opt_interval")
                    if span:
                        ax.plot(
                            [max(span[0], grid[0]), min(span[1], grid[-1])],
                            [q["loss_opt"]] * 2,
                            color=colour,
                            lw=1.2,
                            alpha=0.6,
                        )
                    ax.plot(
                        q["n_opt"], q["loss_opt"], "*", color=colour, ms=13, mec="white", mew=0.8
                    )
            n = "N" if many else f"N: {analysis['n_means']}"
            ax.set(xscale="log", title=LABEL.get(family, family), xlabel=n)
            log_ticks(ax.xaxis, min(every), max(every), most=4 if many else 9)
            if rows:
                ax.legend(loc="best", fontsize=6 if many else 9)
        for ax in axes[::4]:
            ax.set_ylabel("loss" if many else f"validation loss ({analysis['loss_unit']})")
        return svg(fig)


def section(results, curves, a) -> str:
    fitted = [r for r in results if r["tags"].get("budget") is not None]
    if not fitted:
        return ""
    reading = (
        "Each curve is one compute budget; a star is its parabola's minimum, the bar through it the"
        " 95% interval of N_opt. Left of it models are too small, right of it they see too few"
        " tokens."
    )
    return figure_section("IsoFLOP curves", reading, draw(a, fitted), _points(fitted, a))
