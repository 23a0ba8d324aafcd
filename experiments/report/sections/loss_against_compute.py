"""Training curves against compute, and their lower envelope."""

from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np

from experiments.report.elements import f4, figure_section, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE, canvas, styles, svg


def envelope(points: dict) -> dict:
    """{family: (C, loss)} of the lower envelope of training curves: `points[family]` is a list of
    (C, loss) arrays.
    """
    out = {}
    for family, curves in points.items():
        grid = np.geomspace(min(c[0] for c, _ in curves), max(c[-1] for c, _ in curves), 120)
        best = np.full(grid.shape, np.inf)
        for c, loss in curves:
            inside = (grid >= c[0]) & (grid <= c[-1])
            best[inside] = np.minimum(
                best[inside], np.interp(np.log(grid[inside]), np.log(c), loss)
            )
        out[family] = grid[np.isfinite(best)], best[np.isfinite(best)]
    return out


def training_curves(results, curves, c="matmul") -> dict:
    """{family: [(C, smoothed training loss)]} of the grid's runs, C by the convention `c`."""
    out = defaultdict(list)
    for r in results:
        lines = curves.get(r["id"], [])
        if len(lines) < 5:
            continue
        per_token = r["flops_per_token"][c]
        x = np.array([line["tokens"] * per_token for line in lines], float)
        y = np.array([np.nan if line["loss"] is None else line["loss"] for line in lines], float)
        kernel = np.ones(5) / 5
        out[r["family"]].append((x[2:-2], np.convolve(y, kernel, "valid")))
    return out


def draw(analysis, results, curves) -> str:
    """Training curves against compute, their envelope, and the final validation losses."""
    with plt.rc_context(STYLE):
        fig, ax = canvas(height=4.3)
        drawn = styles(list(analysis["families"]))
        points = training_curves(results, curves, analysis["c_convention"])
        for family, group in points.items():
            for c, loss in group:
                ax.plot(c, loss, color=drawn[family].colour, lw=0.6, alpha=0.28)
        for family, (c, loss) in envelope(points).items():
            ax.plot(
                c,
                loss,
                color=drawn[family].colour,
                lw=2,
                label=f"{LABEL.get(family, family)}: envelope of training loss",
            )
        for family in analysis["families"]:
            own = [
                r for r in results if r["family"] == family and r["validation"]["loss"] is not None
            ]
            ax.plot(
                [r["flops"][analysis["c_convention"]] for r in own],
                [r["validation"]["loss"] for r in own],
                drawn[family].mark,
                ms=4.5,
                color=drawn[family].colour,
                mec="white",
                mew=0.5,
                label=f"{LABEL.get(family, family)}: final validation loss",
            )
        finals = [r["validation"]["loss"] for r in results if r["validation"]["loss"] is not None]
        lowest = min([float(np.nanmin(l)) for g in points.values() for _, l in g] + finals)
        ax.set(
            xscale="log",
            xlabel=f"training FLOPs so far ({analysis['c_convention']})",
            ylabel="loss (nats/token)",
            ylim=(lowest - 0.08, max(finals) * 1.6),
        )
        first = [c[0] for g in points.values() for c, _ in g]
        if first:
            ax.set_xlim(
                max(min(first), max(r["flops"][analysis["c_convention"]] for r in results) / 500),
                None,
            )
        ax.legend(fontsize=9)
        return svg(fig)


def _curves_table(results, curves, a) -> str:
    rows = [
        [family, f"{c:.3g}", f"{loss:.4f}"]
        for family, (grid, best) in envelope(
            training_curves(results, curves, a["c_convention"])
        ).items()
        for c, loss in list(zip(grid, best))[::10]
    ]
    return table(["family", f"C ({a['c_convention']})", "envelope of training loss"], rows) + table(
        ["family", f"C ({a['c_convention']})", "final validation loss"],
        [
            [r["family"], f"{r['flops'][a['c_convention']]:.5g}", f4(r["validation"]["loss"])]
            for r in results
        ],
    )


def section(results, curves, a) -> str:
    if a["loss_unit"] != "nats/token":  # which training curves are in
        return ""
    reading = (
        "Thin: training loss of each run, a moving mean of five logged points. Thick: their lower"
        " envelope (Chinchilla approach 1). The learning rate decays to zero only at a run's end,"
        " so curves in mid-flight lie above what the same compute reaches with a shorter schedule."
        " Training and validation text differ, so marks and lines need not meet."
    )
    return figure_section(
        "Loss against compute",
        reading,
        draw(a, results, curves),
        _curves_table(results, curves, a),
    )
