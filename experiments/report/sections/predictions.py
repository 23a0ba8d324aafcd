"""Runs that were predicted before they were trained: the predicted curve beside the run, and how
often the result lay inside.
"""

import matplotlib.pyplot as plt
import numpy as np

from experiments.report import plotting
from experiments.report.elements import esc, f4, figure_section, span, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE
from launch.runs import outcomes, predictions

SHOWN = 4  # of the newest predictions


def _one(ax, row: dict) -> None:
    """The law's curve with its band, the prediction, and the run so far."""
    p, j = row["prediction"], row["judged"]
    x, y = np.array(p["curve"]["tokens"]), np.array(p["curve"]["loss"])
    band = np.array([v or (np.nan, np.nan) for v in p["curve"]["interval"]], float)
    ax.plot(x, y, color=plotting.BLUE, lw=1.6, label="the law: a run that ends here")
    ax.fill_between(x, band[:, 0], band[:, 1], color=plotting.BLUE, alpha=0.16, lw=0)
    at = p["tokens"]
    bars = plotting.bars([p["loss"]], [p["interval"]])
    ax.errorbar([at], [p["loss"]], bars, color=plotting.BLUE, fmt="_", ms=9, capsize=5, lw=1.6)
    tokens, loss = outcomes.training(row)
    if tokens:
        ax.plot(tokens, loss, color="#8a919c", lw=0.9, label="training loss so far")
    if j and j["measured"] is not None:
        colour = plotting.GREEN if j["inside"] else plotting.ORANGE
        said = "validation loss: inside" if j["inside"] else "validation loss: OUTSIDE"
        ax.plot([at], [j["measured"]], "D", color=colour, ms=7, mec="white", zorder=5, label=said)
    every = [*band[np.isfinite(band).all(1)].ravel(), *[v for v in loss if v < 1.5 * y.max()]]
    every += [j["measured"]] if j and j["measured"] is not None else []
    margin = 0.05 * (max(every) - min(every) + 1e-3)
    ax.set(xscale="log", xlabel="training tokens", xlim=(x[0], x[-1] * 1.35))
    ax.set_ylim(min(every) - margin, max(every) + margin)
    plotting.log_ticks(ax.xaxis, x[0], x[-1], most=4)
    arm = LABEL.get(p["family"], p["family"])
    ax.set_title(f"{arm}\n{p['flops']:.3g} FLOPs, x{predictions.times(p['distance'])}")


def draw(rows: list[dict]) -> str:
    with plt.rc_context(STYLE):
        fig, axes = plotting.panels(len(rows), height=3.9)
        for ax, row in zip(axes, rows, strict=True):
            _one(ax, row)
        axes[0].set_ylabel("loss (nats/token)")
        names = {}  # once each, below: panels are narrow
        for ax in axes:
            names |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        fig.legend(names.values(), names, loc="outside lower center", ncols=4, fontsize=8)
        return plotting.svg(fig)


def _said(row: dict) -> list[str]:
    p, j = row["prediction"], row["judged"]
    measured = "" if not j or j["measured"] is None else f4(j["measured"])
    said = row["state"]
    if j:
        said = {True: "inside", False: "OUTSIDE", None: f"not judged: {j['why']}"}[j["inside"]]
    numbers = [
        f"{p['flops']:.4g}",
        f"x{predictions.times(p['distance'])}",
        f"{p['n']:,}",
        f"{p['tokens']:,}",
    ]
    first = [p["id"], p["date"][:10], p["family"], p["law"]]
    outcome = [f4(p["loss"]), span(p["interval"]), measured, said]
    return [*first, *outcome, *numbers, p["sha256"][:12]]


def section(results, curves, a) -> str:
    rows = a.get("predictions") or []
    if not rows:
        return ""
    columns = ["run", "registered", "arm", "law", "predicted", "95%", "measured", ""]
    columns += ["FLOPs (matmul)", "beyond", "N", "tokens", "sha256"]
    counted = predictions.tally([r["judged"] for r in rows if r["judged"]])
    tally = [
        [
            predictions.reach(t),
            str(t["judged"]),
            str(t["inside"]),
        ]
        for t in counted
        if t["judged"]
    ]
    reading = (
        "Each was registered before its run was trained, with the hash of its text, and is held to"
        " it. Line and band: the loss of a run of this size that ends at so many tokens, with its"
        " 95% prediction interval (parameters and the noise of one run). The bar at the end is the"
        " prediction. Grey: the training loss so far, on other text than the validation's: it tends"
        " to lie above the line until the learning rate comes down. The interval is for a law that"
        " holds: the tally says how often it did."
    )
    data = table(columns, [_said(r) for r in rows], 4)
    if tally:
        data += table(["distance of the budget", "finished", "inside"], tally)
    shown = rows[-SHOWN:]
    more = f" Drawn: the newest {SHOWN} of {len(rows)}." if len(rows) > SHOWN else ""
    return figure_section("Predictions", reading + esc(more), draw(shown), data, opened=True)
