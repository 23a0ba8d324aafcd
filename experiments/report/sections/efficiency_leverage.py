"""Compute that dense needs for the MoE's loss, over the MoE's compute."""

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from experiments.report.elements import esc, figure_section, span, table
from experiments.report.plotting import COLOUR, STYLE, canvas, svg


def draw(a: dict) -> str:
    """Compute that dense needs for the MoE's loss, over the MoE's compute."""
    rows = a["leverage"]
    with plt.rc_context(STYLE):
        fig, ax = canvas(height=3.2)
        c, y = (np.array([r[k] for r in rows]) for k in ("flops", "leverage"))
        spans = np.array([r["interval"] or (np.nan, np.nan) for r in rows], float)
        if len(rows) > 1:
            ax.fill_between(c, spans[:, 0], spans[:, 1], color=COLOUR["moe"], alpha=0.16, lw=0)
        error = np.nan_to_num(np.array([y - spans[:, 0], spans[:, 1] - y]).clip(0))
        ax.errorbar(c, y, error, fmt="s-", color=COLOUR["moe"], capsize=4, lw=1.6, ms=6)
        for ci, yi in zip(c, y):
            ax.annotate(
                f"×{yi:.2f}",
                (ci, yi),
                xytext=(8, 6),
                textcoords="offset points",
                fontsize=9,
                color="#2c3440",
            )
        ax.axhline(1, color="#8a919c", lw=1)
        ax.text(
            0.995,
            1,
            "no gain",
            transform=ax.get_yaxis_transform(),
            va="bottom",
            ha="right",
            fontsize=8,
            color="#4a5361",
        )
        ax.set(
            xscale="log",
            xlabel=f"C of the MoE model: training FLOPs ({a['c_convention']})",
            ylabel="dense FLOPs / MoE FLOPs",
        )
        ax.set_ylim(
            min(0.9, np.nanmin([*spans[:, 0], *y]) * 0.97),
            max(1.1, np.nanmax([*spans[:, 1], *y]) * 1.05),
        )
        ax.set_xlim(c.min() / 1.4, c.max() * 1.6)
        ax.xaxis.set_major_locator(matplotlib.ticker.FixedLocator(c.tolist()))
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        ax.xaxis.set_major_formatter(
            matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:.3g}".replace("e+", "e"))
        )
        return svg(fig)


def section(results, curves, a) -> str:
    if not a.get("leverage"):
        return ""
    reading = (
        "Compute that a dense model needs for the loss of the best MoE model at a budget, over that"
        " budget; the dense best loss is read along a straight line in log loss against log C"
        " through the dense minima, so values far from them are extrapolations. Bars and band: 95%"
        " intervals."
    )
    if along := (a.get("gain_trends") or {}).get("words", {}).get("along"):
        reading += f" {esc(along[0].upper() + along[1:])} (straight lines over log C)."
    rows = [
        [f"{r['flops']:.4g}", f"{r['leverage']:.3f}", span(r["interval"], 3)] for r in a["leverage"]
    ]
    return figure_section(
        "Efficiency leverage of experts",
        reading,
        draw(a),
        table([f"C ({a['c_convention']})", "leverage", "95%"], rows, 0),
    )
