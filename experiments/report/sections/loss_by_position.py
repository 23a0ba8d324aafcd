"""Loss by position in the window, of each arm at its largest budget (Kaplan et al. 2020, arXiv
2001.08361, fig. 7).
"""

from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np

from experiments.laws.fitting import bootstrap
from experiments.report import elements, plotting
from experiments.report.elements import esc, f4, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE


def curves_of(results: list[dict], a: dict) -> list[dict]:
    """One row for each arm: of its largest budget, or of the most tokens, the size of the lowest
    loss; the means over its seeds at each bin, with intervals. Of arms that differ in context alone
    the longest.
    """
    fitted = set(a["fitted"])
    cells = defaultdict(lambda: defaultdict(list))
    for r in results:
        if r.get("loss_by_position") and r["id"] in fitted:
            tags = r["tags"]
            spent = tags.get("budget") or tags.get("tokens") or r["training_tokens"]
            cells[r["family"]][spent, tags.get("size")].append(r)
    longest = defaultdict(int)
    for c in a.get("contexts") or []:
        longest[c["arm"]] = max(longest[c["arm"]], c["context"])
    shorter = {c["family"] for c in a.get("contexts") or [] if c["context"] < longest[c["arm"]]}
    out = []
    for family, found in cells.items():
        if family in shorter:
            continue
        most = max(spent for spent, _ in found)
        ends = {size: own for (spent, size), own in found.items() if spent == most}
        size = min(ends, key=lambda s: np.mean([r["validation"]["loss"] for r in ends[s]]))
        out.append({"family": family, "size": size, **_mean(ends[size])})
    order = list(a.get("families") or [])  # an arm has one colour in all figures
    return sorted(out, key=lambda r: order.index(r["family"]) if r["family"] in order else 99)


def _mean(runs: list[dict]) -> dict:
    """Over seeds: a Student interval, or of one run 1.96 standard errors over windows."""
    tables = [r["loss_by_position"] for r in runs]
    first = tables[0]["first"]
    tables = [t for t in tables if t["first"] == first]
    loss, around = [], []
    for values in zip(*(t["loss"] for t in tables), strict=True):
        mean, interval = bootstrap.student(values)
        loss.append(mean)
        around.append(interval)
    if len(tables) == 1:
        wide = [1.96 * (se or 0.0) for se in tables[0]["se"]]
        around = [[v - w, v + w] for v, w in zip(loss, wide, strict=True)]
    end = runs[0]["run"]["model"]["seq_len"]
    return {"first": first, "end": end, "loss": loss, "interval": around, "seeds": len(tables)}


def draw(rows: list[dict], unit: str) -> str:
    styles = plotting.styles([r["family"] for r in rows])
    with plt.rc_context(STYLE):
        fig, ax = plotting.canvas(height=4.6)
        for r in rows:
            style = styles[r["family"]]
            edges = np.array([*r["first"], r["end"] + 1])
            x = np.sqrt(edges[:-1] * (edges[1:] - 1.0))  # the middle of a bin, on a log axis
            low, high = np.array(r["interval"]).T
            form = {"color": style.colour, "ls": style.line}
            ax.plot(x, r["loss"], **form, lw=1.5, label=LABEL.get(r["family"], r["family"]))
            ax.fill_between(x, low, high, color=style.colour, alpha=0.1, lw=0)
        ax.set(xscale="log", xlabel="position in the window (tokens of context)")
        ax.set_ylabel(f"validation loss ({unit})")
        plotting.log_ticks(ax.xaxis, 1, max(r["end"] for r in rows), most=12)
        ax.legend(fontsize=9 if len(rows) < 8 else 8, ncols=1 + len(rows) // 7)
        return plotting.svg(fig)


def section(results, curves, a) -> str:
    rows = curves_of(results, a)
    if not rows:
        return ""
    starts = sorted({t for r in rows for t in r["first"]})
    by = [dict(zip(r["first"], r["loss"], strict=True)) for r in rows]
    data = [[f"{t:,}", *(f4(own.get(t)) for own in by)] for t in starts]
    names = [f"{LABEL.get(r['family'], r['family'])} ({a['dial']} {r['size']})" for r in rows]
    one = any(r["seeds"] == 1 for r in rows)
    reading = (
        "Mean loss of the validation tokens by how many tokens of the window stand before what is"
        " predicted, in log-spaced bins (the table has their first positions): of each arm at its"
        " largest budget, the size with the lowest loss, the mean over its seeds. Where a curve"
        " goes on falling to its right end, the arm still gains from context; where it is level, it"
        " has stopped. Bands: 95% Student intervals over seeds"
        + (", of a single run 1.96 standard errors over windows" if one else "")
        + ". Losses are in nats per token."
    )
    return elements.figure_section(
        "Loss by position in the window",
        reading,
        draw(rows, "nats/token"),
        table([esc("position"), *names], data),
    )
