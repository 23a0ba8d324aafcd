"""L = E + A/N^alpha + B/D^beta: its parameters, what it predicts, and what is left over."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.laws.published import constants
from experiments.report.elements import esc, f4, figure_section, g4, span, table, units
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE, Style, canvas, log_ticks, styles, svg


def _losses(ax, family: str, style: Style, p: dict) -> None:
    """Measured and held-out losses of a family against compute, the law's best loss at each
    budget with its band, and what a fit without the upper runs predicted of them.
    """
    colour, mark = style.colour, style.mark
    q = {k: np.array(v) for k, v in p["points"].items()}
    out = q["held_out"].astype(bool)
    label = f"{LABEL.get(family, family)}: runs"
    ax.plot(q["c"][~out], q["measured"][~out], mark, color=colour, ms=5, label=label)
    label = "held out of one fit"
    ax.plot(q["c"][out], q["measured"][out], mark, mfc="white", color=colour, ms=6, label=label)
    c = np.array(p["curve"]["c"])
    best = [v if v is not None else np.nan for v in p["curve"]["loss"]]
    ax.plot(c, best, color=colour, lw=1.8, label="best loss of the law")
    band = np.array([v or (np.nan, np.nan) for v in p["curve"]["interval"]], float)
    ax.fill_between(c, band[:, 0], band[:, 1], color=colour, alpha=0.16, lw=0)
    if p["extrapolation"]:
        at, label = p["extrapolation"]["points"], "as predicted without them"
        ax.plot(q["c"][at], p["extrapolation"]["predicted"], "x", color=colour, ms=5, label=label)


def _residuals(ax, k: str, style: Style, p: dict) -> None:
    """Of a family against N or D."""
    colour, mark = style.colour, style.mark
    q = {name: np.array(v) for name, v in p["points"].items()}
    out = q["held_out"].astype(bool)
    ax.plot(q[k][~out], 100 * q["log_residual"][~out], mark, color=colour, ms=5)
    ax.plot(q[k][out], 100 * q["log_residual"][out], mark, mfc="white", color=colour, ms=6)


def draw(a: dict) -> str:
    """Losses against compute with the law's frontier; residuals against N and D."""
    laws = {k: f["parametric"] for k, f in a["families"].items() if "points" in f["parametric"]}
    with plt.rc_context(STYLE):
        fig, panels = canvas(3, height=4.0, gridspec_kw={"width_ratios": [1.5, 1, 1]})
        drawn = styles(list(laws))
        for family, p in laws.items():
            _losses(panels[0], family, drawn[family], p)
            _residuals(panels[1], "n", drawn[family], p)
            _residuals(panels[2], "d", drawn[family], p)
        panels[0].set(
            xscale="log",
            xlabel=f"C: training FLOPs ({a['c_convention']})",
            ylabel=f"validation loss ({a['loss_unit']})",
        )
        if len(laws) <= 4:  # else it would cover the figure
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


PUBLISHED_LAWS = ("hoffmann2022", "besiroglu2024")


def _off(p) -> str:
    e = p.get("extrapolation")
    if not e:
        return ""
    return (
        f" Held out: {e['n_test']} runs above, predicted from {e['n_fit']} of less compute, are off"
        f" by {e['mean_relative_error']:.1%} on average ({e['worst_relative_error']:.1%} at worst)."
    )


def section(results, curves, a) -> str:
    laws = {family: f["parametric"] for family, f in a["families"].items()}
    verdicts = "".join(
        f"<p class=read><b>{esc(LABEL.get(family, family))}</b>: {esc(p['verdict'])}.{_off(p)}</p>"
        for family, p in laws.items()
    )
    shown = {family: p for family, p in laws.items() if "parameters" in p}
    reading = (
        "L = E + A/N<sup>alpha</sup> + B/D<sup>beta</sup> (Hoffmann et al. 2022, eq 10), sum of"
        " Huber losses on log L, many ranked starts. Line and band: the law's least loss at each"
        " budget with its 95% interval, beyond the runs to four times their compute. Open marks:"
        " the upper fifth of compute, left out of one more fit, whose predictions are the crosses."
        " Values of a law that the runs do not identify are shown for completeness, not for use."
    )
    if not shown:
        return f"<section><h2>Parametric law</h2><p class=read>{reading}</p>{verdicts}</section>"
    theirs = {
        f"{k} ({constants.PUBLISHED[k].mark.split(';')[0]})": constants.PUBLISHED[k].values
        for k in PUBLISHED_LAWS
    }
    rows = [
        [
            k,
            *[f"{g4(p['parameters'][k])} {span(p['intervals'][k], 3)}" for p in shown.values()],
            *[f"{v[k]:g}" for v in theirs.values()],
        ]
        for k in ("E", "A", "alpha", "B", "beta")
    ]
    rows += [
        [
            "sum of Huber losses",
            *[f"{p['objective']:.3g}" for p in shown.values()],
            *[""] * len(theirs),
        ],
        [
            "starts that reached it",
            *[f"{p['starts_at_optimum']:.0%}" for p in shown.values()],
            *[""] * len(theirs),
        ],
    ]
    verdicts += "".join(
        f"<p class=read>Ridges, {esc(LABEL.get(k, k))}:"
        f" {esc('; '.join(p['verdicts']['ridges']))}.</p>"
        for k, p in shown.items()
        if p["verdicts"]["ridges"]
    )
    data = table(
        ["family", *units(a), "measured", "fitted", "held out"],
        [
            [family, f"{n:,.0f}", f"{d:,.0f}", f"{c:.4g}", f4(m), f4(v), "yes" if out else ""]
            for family, p in shown.items()
            for n, d, c, m, v, out in zip(
                *(p["points"][k] for k in ("n", "d", "c", "measured", "fitted", "held_out"))
            )
        ],
    )
    values = table([f"N {a['n_convention']}, L {a['loss_unit']}", *shown, *theirs], rows)
    return figure_section("Parametric law", reading, verdicts + draw(a), data).replace(
        "<details>", values + "<details>", 1
    )
