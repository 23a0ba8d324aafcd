"""Sections about what runs cost: predicted against actual, and dense against MoE at equal wall
clock and memory.
"""

import matplotlib.pyplot as plt
import numpy as np

from experiments.report import elements, figures
from experiments.report.elements import esc, f4, span, table
from experiments.report.figures import COLOUR, LABEL, MARK, STYLE

WITHIN = 0.25  # what a prediction is held to


def _draw(c: dict) -> str:
    """Predicted against actual seconds of training, one mark for each run."""
    with plt.rc_context(STYLE):
        fig, ax = figures.canvas(height=4.2)
        every = np.array([v for r in c["runs"] for v in (r["predicted"], r["actual"])])
        line = np.array([every.min() / 1.2, every.max() * 1.2])
        ax.fill_between(
            line,
            line * (1 - WITHIN),
            line * (1 + WITHIN),
            color="#e6e8ec",
            zorder=0,
            label=f"within {WITHIN:.0%}",
        )
        ax.plot(line, line, color="#8a919c", lw=1)
        for family in dict.fromkeys(r["family"] for r in c["runs"]):
            own = [r for r in c["runs"] if r["family"] == family]
            xy = [[r[k] for r in own] for k in ("actual", "predicted")]
            ax.plot(
                *xy,
                MARK.get(family, "o"),
                color=COLOUR.get(family, "#555"),
                ms=5,
                alpha=0.8,
                label=LABEL.get(family, family),
            )
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="actual seconds of training",
            ylabel="predicted",
            xlim=line,
            ylim=line,
        )
        for axis in (ax.xaxis, ax.yaxis):
            figures.log_ticks(axis, *line)
        ax.legend(fontsize=9)
        return figures.svg(fig)


def _verdict(ratio: float) -> str:
    return (
        f"{ratio:.2f} (predicted / actual),"
        f" {'within' if abs(ratio - 1) <= WITHIN else 'outside of'} {WITHIN:.0%}"
    )


def forecast(results, curves, a) -> str:
    c = a.get("forecast")
    if not c:
        return ""
    t = c["total"]
    rows = [
        [
            "all runs, evaluation and compilation included, seconds of workers",
            f"{t['predicted']:.0f}",
            f"{t['actual']:.0f}",
            _verdict(t["ratio"]),
        ],
        ["the median run, training alone", "", "", _verdict(c["median_ratio"])],
    ]
    if c["median_cpu_ratio"]:
        rows.append(["the median run in CPU-seconds", "", "", _verdict(c["median_cpu_ratio"])])
    if t["cpu"]:
        rows.insert(
            1,
            [
                "the same in CPU-seconds: less, where others used the machine too",
                f"{t['predicted']:.0f}",
                f"{t['cpu']:.0f}",
                _verdict(t["predicted"] / t["cpu"]),
            ],
        )
    for s in c["sittings"]:
        known = isinstance(s.get("predicted"), (int, float))
        predicted, ratio = (
            ("unknown", "")
            if not known
            else (f"{s['predicted']:.0f}", _verdict(s["predicted"] / s["seconds"]))
        )
        rows.append(
            [
                f"on the clock, {s['runs']} runs on {s['workers']} workers",
                predicted,
                f"{s['seconds']:.0f}",
                ratio,
            ]
        )
    if c["energy"]:
        e = c["energy"]
        rows.append(
            [f"energy of {e['runs']} runs, {e['source']}", "", f"{e['kwh']:.4g} kWh", "measured"]
        )
    data = [
        [
            r["id"],
            r["family"],
            r["size"],
            f"{r['predicted']:.2f}",
            f"{r['actual']:.2f}",
            f"{r['ratio']:.2f}",
        ]
        for r in sorted(c["runs"], key=lambda r: r["ratio"])
    ]
    head = table(["seconds", "predicted", "actual", "ratio"], rows)
    reading = (
        f"Seconds, as predicted before the sweep first started ({esc(c['source'])}) and as its runs"
        f" took them. Grey: within {WITHIN:.0%}."
    )
    body = head + _draw(c)
    return elements.section(
        "Predicted against actual",
        reading,
        body,
        table(["run", "family", "d_model", "predicted s", "actual s", "ratio"], data, 2),
    )


UNITS = {
    "seconds": ("seconds of training", lambda v: f"{v:.3g} s"),
    "bytes": ("bytes of training", lambda v: f"{v / 1e6:.4g} MB"),
}


def equal(results, curves, a) -> str:
    rows = a.get("equal_spent") or []
    if not rows:
        return ""
    data = [
        [
            UNITS[r["field"]][0],
            f"{r['budget']:.3g}",
            UNITS[r["field"]][1](r["at"]),
            f4(r["dense"]),
            f4(r["moe"]),
            f"{r['difference']:+.4f}",
            span(r["interval"]),
            "extrapolated: beyond the runs" if r["extrapolated"] else "",
        ]
        for r in rows
    ]
    reading = (
        "Read off the fitted curves, as no run was made for it. Seconds: the best MoE loss at a"
        " budget against the dense loss at the same seconds of training, on the straight line in"
        " log loss against log seconds through the dense minima; they are this machine's and this"
        " implementation's. Bytes (of training, as counted): each family at its best size that"
        " needs no more, at the same budget; first with what the dense minimum needs, then with"
        " what the MoE minimum needs. 95% intervals."
    )
    columns = ["equal", "budget", "at", "dense", "MoE", "MoE − dense", "95%", "note"]
    return (
        "<section><h2>Dense against MoE at equal wall clock and equal memory</h2><p"
        f" class=read>{esc(reading)}</p>{table(columns, data)}</section>"
    )
