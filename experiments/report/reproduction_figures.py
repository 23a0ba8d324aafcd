"""Figures of `isoflop reproduce`: what the fit found, as SVG text."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.laws.fitting import allocation, bootstrap, solve
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.published import constants
from experiments.laws.published.reproductions.besiroglu2024 import HOFFMANN
from experiments.report.plotting import STYLE, canvas, svg

SHADES = plt.get_cmap("viridis")
HUE = {"fit": "#3b6fb6", "other": "#d1602a", "grey": "#8a919c"}


def besiroglu2024(drawn) -> str:
    """Measured against fitted loss, and N_opt over compute with its band beside Hoffmann's printed
    law.
    """
    f = drawn["fit"]
    with plt.rc_context(STYLE):
        fig, (left, right) = canvas(2, height=4.2)
        fitted = f.predict(f.points.x)[0]
        dots = left.scatter(
            f.points.y,
            (fitted / f.points.y - 1) * 100,
            c=np.log10(drawn["flops"]),
            s=16,
            cmap="viridis",
            lw=0,
        )
        left.axhline(0, color=HUE["grey"], lw=1)
        left.set(
            xlabel="measured loss (nats/token)",
            ylabel="fitted − measured (%)",
            title=f"residuals of {len(fitted)} runs",
        )
        fig.colorbar(dots, ax=left, label="log10 C", pad=0.01)
        budgets = np.geomspace(drawn["flops"].min(), 1e25, 40)
        rows = [allocation.frontier(f, c, allocation.Cost(), {})[0] for c in budgets]
        bands = np.array([bootstrap.interval(r[1:]) or (np.nan, np.nan) for r in rows]).T
        right.fill_between(budgets, *bands, color=HUE["fit"], alpha=0.2, lw=0)
        right.plot(
            budgets, [r[0] for r in rows], color=HUE["fit"], lw=2, label="this fit, 95% band"
        )
        h = constants.PUBLISHED["hoffmann2022"]
        v = HOFFMANN
        g = (v["alpha"] * v["A"] / (v["beta"] * v["B"])) ** (1 / (v["alpha"] + v["beta"]))
        split = v["beta"] / (v["alpha"] + v["beta"])
        right.plot(
            budgets,
            g * (budgets / 6) ** split,
            "--",
            color=HUE["other"],
            lw=1.6,
            label=f"Hoffmann et al. as printed ({h.mark})",
        )
        right.plot(
            5.76e23, 70e9, "*", ms=12, color="#222", label="Chinchilla as trained: 70B (unverified)"
        )
        right.set(
            xscale="log",
            yscale="log",
            xlabel="C: training FLOPs (6 N D)",
            ylabel="N_opt (parameters)",
            title="compute-optimal size",
        )
        right.legend(fontsize=9, loc="upper left")
        return svg(fig)


def gadre2024(drawn) -> str:
    """Loss against compute by tokens per parameter for each training set: fitted on five runs,
    shown on all.
    """
    with plt.rc_context(STYLE):
        fig, panels = canvas(3, height=3.9, sharey=True)
        for ax, (name, (f, _, t)) in zip(panels, drawn["fits"].items()):
            levels = sorted(set(np.round(t["tokens_per_param"]).tolist()))
            for m, colour in zip(levels, SHADES(np.linspace(0.05, 0.9, len(levels)))):
                rows = np.abs(t["tokens_per_param"] - m) < 0.1 * m
                grid = np.geomspace(t["flops"][rows].min() / 2, t["flops"][rows].max() * 2, 40)
                ax.plot(
                    grid,
                    f.predict({"C": grid, "M": np.full(40, float(m))})[0],
                    color=colour,
                    lw=1.2,
                )
                fitted = rows & (t["fit_point_loss"] == 1)
                ax.plot(
                    t["flops"][rows & ~fitted],
                    t["loss"][rows & ~fitted],
                    "o",
                    ms=4.5,
                    color=colour,
                    label=f"M = {m:g}",
                )
                ax.plot(
                    t["flops"][fitted],
                    t["loss"][fitted],
                    "*",
                    ms=11,
                    color=colour,
                    mec="#222",
                    mew=0.6,
                )
            ax.set(xscale="log", title=name, xlabel="C: training FLOPs (6 N D)")
        panels[0].set_ylabel("C4 loss (nats/token)")
        panels[-1].legend(
            fontsize=8, ncols=2, title="tokens per parameter; ★ fitted", title_fontsize=8
        )
        return svg(fig)


def clark2022(drawn) -> str:
    """Loss against experts, one line per dense size and one panel per router."""
    with plt.rc_context(STYLE):
        fig, panels = canvas(3, height=3.9, sharey=True)
        for ax, (name, f) in zip(panels, drawn["fits"].items()):
            sizes = sorted(set(f.points.x["N"].tolist()))
            grid = np.geomspace(1, 600, 60)
            for n, colour in zip(sizes, SHADES(np.linspace(0.05, 0.9, len(sizes)))):
                rows = f.points.x["N"] == n
                ax.plot(
                    f.points.x["E"][rows],
                    f.points.y[rows],
                    "o",
                    ms=4.5,
                    color=colour,
                    label=f"{n / 1e6:.0f}M",
                )
                ax.plot(
                    grid,
                    solve.predict(FORMS["clark2022"], f.theta, {"N": np.full(60, n), "E": grid})[0],
                    color=colour,
                    lw=1.2,
                )
            ax.set(xscale="log", title=name, xlabel="E: experts")
        panels[0].set(ylabel="validation loss (nats/token)", ylim=(1.93, 3.5))
        panels[-1].legend(
            fontsize=8,
            ncols=2,
            loc="upper right",
            title="N: parameters a token sees",
            title_fontsize=8,
        )
        return svg(fig)


def muennighoff2023(drawn) -> str:
    """Residuals of the lowest optimum by epochs, and the objective over R_D* and R_N*."""
    f, second, p = drawn["fit"], drawn["second"], drawn["printed"]
    with plt.rc_context(STYLE):
        fig, (left, right) = canvas(2, height=4.2)
        epochs = f.points.x["D"] / f.points.x["U"]
        off = (f.predict(f.points.x)[0] / f.points.y - 1) * 100
        colours = np.log10(f.points.x["N"])
        dots = left.scatter(epochs, off, c=colours, s=16, cmap="viridis", lw=0)
        left.axhline(0, color=HUE["grey"], lw=1)
        left.set(
            xscale="log",
            xlabel="epochs",
            ylabel="fitted − measured (%)",
            title=f"residuals of {len(off)} runs, lowest optimum",
        )
        fig.colorbar(dots, ax=left, label="log10 N", pad=0.01)
        rd, rn = np.geomspace(3, 1000, 90), np.geomspace(0.3, 30, 80)
        value = np.array([second.value(np.full(len(rn), d), rn) for d in rd]).T
        above = (value / f.value - 1) * 100
        levels = [0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
        shades = right.contourf(rd, rn, above, levels, cmap="viridis_r", extend="max")
        fig.colorbar(shades, ax=right, label="above the lowest objective (%)", pad=0.01)
        right.plot(
            p.values["RD"], p.values["RN"], "*", ms=13, color=HUE["other"], label="as printed"
        )
        right.plot(
            f.parameters["RD"], f.parameters["RN"], "o", color="#222", label="lowest optimum"
        )
        right.set(xscale="log", yscale="log", xlabel="R_D*", ylabel="R_N*", title="sum-Huber")
        right.legend(fontsize=9, loc="upper right", frameon=True, facecolor="white")
        return svg(fig)


FIGURES = {
    "besiroglu2024": besiroglu2024,
    "gadre2024": gadre2024,
    "clark2022": clark2022,
    "muennighoff2023": muennighoff2023,
}
