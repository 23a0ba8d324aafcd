"""Figures of the parametric law and of efficiency leverage: functions of the analysis that return
SVG text.
"""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from experiments.report.figures import COLOUR, LABEL, MARK, STYLE, canvas, log_ticks, svg


def parametric(a: dict) -> str:
    """Per family: measured and held-out losses against compute with the law's frontier and its
    band; residuals against N and D.
    """
    laws = {k: f["parametric"] for k, f in a["families"].items() if "points" in f["parametric"]}
    with plt.rc_context(STYLE):
        fig, panels = canvas(3, height=4.0, gridspec_kw={"width_ratios": [1.5, 1, 1]})
        for family, p in laws.items():
            colour, mark, q = (
                COLOUR.get(family, "#4a5361"),
                MARK.get(family, "o"),
                {k: np.array(v) for k, v in p["points"].items()},
            )
            out = q["held_out"].astype(bool)
            panels[0].plot(
                q["c"][~out],
                q["measured"][~out],
                mark,
                color=colour,
                ms=5,
                label=f"{LABEL.get(family, family)}: runs",
            )
            panels[0].plot(
                q["c"][out],
                q["measured"][out],
                mark,
                mfc="white",
                color=colour,
                ms=6,
                label="held out of one fit",
            )
            c = np.array(p["curve"]["c"])
            panels[0].plot(
                c,
                [v if v is not None else np.nan for v in p["curve"]["loss"]],
                color=colour,
                lw=1.8,
                label="best loss of the law",
            )
            band = np.array([v or (np.nan, np.nan) for v in p["curve"]["interval"]], float)
            panels[0].fill_between(c, band[:, 0], band[:, 1], color=colour, alpha=0.16, lw=0)
            if p["extrapolation"]:
                at = p["extrapolation"]["points"]
                panels[0].plot(
                    q["c"][at],
                    p["extrapolation"]["predicted"],
                    "x",
                    color=colour,
                    ms=5,
                    label="as predicted without them",
                )
            for ax, k in ((panels[1], "n"), (panels[2], "d")):
                ax.plot(q[k][~out], 100 * q["log_residual"][~out], mark, color=colour, ms=5)
                ax.plot(
                    q[k][out], 100 * q["log_residual"][out], mark, mfc="white", color=colour, ms=6
                )
        panels[0].set(
            xscale="log",
            xlabel=f"C: training FLOPs ({a['c_convention']})",
            ylabel="validation loss (nats/token)",
        )
        panels[0].legend(fontsize=8)
        for ax, k, name in (
            (panels[1], "n", f"N: {a['n_means']}"),
            (panels[2], "d", "D: training tokens"),
        ):
            every = [v for p in laws.values() for v in p["points"][k]]
            ax.axhline(0, color="#8a919c", lw=1)
            ax.set(xscale="log", xlabel=name)
            log_ticks(ax.xaxis, min(every), max(every), most=4)
            ax.xaxis.label.set_size(9)
        panels[1].set_ylabel("fitted − measured (%)")
        return svg(fig)


def leverage(a: dict) -> str:
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
