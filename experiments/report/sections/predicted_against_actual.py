"""Seconds of training as the plan predicted them, against what the runs took."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.report import elements, plotting
from experiments.report.elements import esc, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE

WITHIN = 0.25  # what a prediction is held to


def _draw(c: dict) -> str:
    """Predicted against actual seconds of training, one mark for each run."""
    with plt.rc_context(STYLE):
        fig, ax = plotting.canvas(height=4.2)
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
        drawn = plotting.styles(list(dict.fromkeys(r["family"] for r in c["runs"])))
        for family, style in drawn.items():
            own = [r for r in c["runs"] if r["family"] == family]
            xy = [[r[k] for r in own] for k in ("actual", "predicted")]
            ax.plot(
                *xy,
                style.mark,
                color=style.colour,
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
            plotting.log_ticks(axis, *line)
        ax.legend(fontsize=9)
        return plotting.svg(fig)


def _verdict(ratio: float) -> str:
    return (
        f"{ratio:.2f} (predicted / actual),"
        f" {'within' if abs(ratio - 1) <= WITHIN else 'outside of'} {WITHIN:.0%}"
    )


def section(results, curves, a) -> str:
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
    return elements.figure_section(
        "Predicted against actual",
        reading,
        body,
        table(["run", "family", "d_model", "predicted s", "actual s", "ratio"], data, 2),
    )
