"""The report's figures: functions of (analysis, results, curves) that return SVG text with
searchable labels.
"""

import io
from collections import defaultdict

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.laws.published.constants import ALLOCATIONS
from experiments.laws.runs.table import routed
from experiments.report.labels import LABEL

BLUE, ORANGE, GREEN = "#3b6fb6", "#d1602a", "#2b8a57"
COLOUR = {"dense": BLUE, "moe": ORANGE, "sinusoidal": BLUE, "learned": ORANGE, "rope": GREEN}
COLOUR |= {"moe_8_1": BLUE, "moe_32_4": ORANGE, "moe_64_8": GREEN}
SHADES = {"dense": ("#9cbfe6", "#3b6fb6", "#17365f"), "moe": ("#f2b892", "#d1602a", "#6e2a0c")}
MARK = {"moe": "s", "learned": "s", "rope": "D", "moe_32_4": "s", "moe_64_8": "D"}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#8a919c",
    "axes.labelcolor": "#2c3440",
    "xtick.color": "#4a5361",
    "ytick.color": "#4a5361",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.hashsalt": "isoflop",
}


def svg(fig) -> str:
    out = io.StringIO()
    fig.savefig(out, format="svg", metadata={"Date": None})
    plt.close(fig)
    text = out.getvalue()
    return text[text.index("<svg") :]


def canvas(columns=1, width=9.2, height=3.9, **kw):
    with plt.rc_context(STYLE):
        return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **kw)


def shades(family: str, n: int) -> list:
    """`n` colours of a family, light to dark with the budget."""
    ramp = matplotlib.colors.LinearSegmentedColormap.from_list(
        family, SHADES.get(family, SHADES["dense"])
    )
    return [ramp(x) for x in (np.linspace(0, 1, n) if n > 1 else [0.5])]


def log_ticks(axis, low, high, most=9):
    """Ticks at 1, 2, 5 x 10^k, or more of them, as short numbers: a decade or less of sizes has no
    powers of ten to show.
    """
    decades = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    for steps in (
        (1, 2, 5),
        (1, 1.5, 2, 3, 5, 7),
        (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
    ):
        ticks = [
            m * 10.0**k for k in decades for m in steps if low * 0.8 <= m * 10.0**k <= high * 1.25
        ]
        if len(ticks) >= 3:
            break
    ticks = ticks[:: -(-len(ticks) // most)]
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: _short(v)))


def _short(v: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if 1 <= v / size < 1e4:
            return f"{v / size:.4g}{unit}"
    return f"{v:g}"


def isoflop(analysis, results) -> str:
    """Loss against N at each budget, one panel per family, with the parabolas and their minima."""
    families = list(analysis["families"])
    with plt.rc_context(STYLE):
        fig, axes = canvas(len(families), sharey=True, squeeze=False)
        points, best = defaultdict(list), set(analysis.get("fitted") or ())
        for r in results:
            if r["validation"]["loss"] is not None and (not best or r["id"] in best):
                points[r["family"], r["tags"].get("budget")].append(
                    (r["parameters"][analysis["n_convention"]], r["validation"]["loss"])
                )
        every = [n for group in points.values() for n, _ in group]
        for ax, family in zip(axes[0], families):
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
            ax.set(
                xscale="log", title=LABEL.get(family, family), xlabel=f"N: {analysis['n_means']}"
            )
            log_ticks(ax.xaxis, min(every), max(every))
            if rows:
                ax.legend(loc="best", fontsize=9)
        axes[0][0].set_ylabel("validation loss (nats/token)")
        return svg(fig)


def optima(analysis) -> str:
    """N_opt and D_opt against C with their power laws."""
    with plt.rc_context(STYLE):
        fig, axes = canvas(2, height=5.2)
        for ax, field, name in (
            (axes[0], "n", f"N_opt: {analysis['n_means']}"),
            (axes[1], "d", "D_opt: training tokens"),
        ):
            seen = []
            for k, (family, f) in enumerate(analysis["families"].items()):
                rows = [q for q in f["parabolas"] if q["interior"]]
                if not rows:
                    continue
                c, y = (np.array([q[key] for q in rows]) for key in ("flops", f"{field}_opt"))
                spans = [q.get(f"{field}_opt_interval") or (v, v) for q, v in zip(rows, y)]
                error = np.array([[max(0, v - s[0]), max(0, s[1] - v)] for v, s in zip(y, spans)]).T
                ax.errorbar(
                    c * (1 + 0.02 * k),
                    y,
                    error,
                    fmt=MARK.get(family, "o"),
                    color=COLOUR.get(family),
                    ms=6,
                    lw=1.2,
                    capsize=3,
                )
                seen += [*y, *[s[0] for s in spans], *[s[1] for s in spans]]
                law, exponent = f[f"{field}_law"], f[f"{field}_exponent"]
                if law:
                    grid = np.geomspace(c.min() / 1.3, c.max() * 1.3, 50)
                    span = f.get(f"{field}_exponent_interval")
                    around = f" [{span[0]:.2f}, {span[1]:.2f}]" if span else ""
                    ax.plot(
                        grid,
                        np.exp(law[0]) * grid ** law[1],
                        color=COLOUR.get(family),
                        lw=1.4,
                        label=f"{LABEL.get(family, family)}: C^{exponent:.2f}{around}",
                    )
            _published(ax, field, seen, analysis)
            ax.set(
                xscale="log",
                yscale="log",
                xlabel=f"C: training FLOPs ({analysis['c_convention']})",
                ylabel=name,
            )
            budgets = [q["flops"] for f in analysis["families"].values() for q in f["parabolas"]]
            ax.xaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:.0e}".replace("e+", "e"))
            )
            ax.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            ax.set_xticks(
                budgets[: len(next(iter(analysis["families"].values()))["parabolas"])], minor=False
            )
            ax.xaxis.set_major_formatter(
                matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:.3g}".replace("e+", "e"))
            )
            if seen:
                log_ticks(ax.yaxis, min(seen), max(seen))
                ax.set_ylim(min(seen) / 1.5, max(seen) * 1.6)
            if ax.get_legend_handles_labels()[1]:
                ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8.5)
        return svg(fig)


def _published(ax, field, seen, analysis):
    """Published exponents as lines through the middle of these minima: slopes can be compared,
    prefactors belong to other data.
    """
    rows = [q for f in analysis["families"].values() for q in f["parabolas"] if q["interior"]]
    if not rows:
        return
    c, y = (np.exp(np.mean([np.log(q[k]) for q in rows])) for k in ("flops", f"{field}_opt"))
    grid = np.array([min(q["flops"] for q in rows) / 1.3, max(q["flops"] for q in rows) * 1.3])
    for (name, p), style in zip(ALLOCATIONS.items(), ("-", "--", "-.", ":", (0, (1, 3)))):
        slope = getattr(p, field)
        ax.plot(
            grid,
            y * (grid / c) ** slope,
            ls=style,
            color="#8a919c",
            lw=1,
            zorder=1,
            label=f"{name}: C^{slope:.2f} ({p.mark})",
        )


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


def compute(analysis, results, curves) -> str:
    """Training curves against compute, their envelope, and the final validation losses."""
    with plt.rc_context(STYLE):
        fig, ax = canvas(height=4.3)
        points = training_curves(results, curves, analysis["c_convention"])
        for family, group in points.items():
            for c, loss in group:
                ax.plot(c, loss, color=COLOUR.get(family), lw=0.6, alpha=0.28)
        for family, (c, loss) in envelope(points).items():
            ax.plot(
                c,
                loss,
                color=COLOUR.get(family),
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
                MARK.get(family, "o"),
                ms=4.5,
                color=COLOUR.get(family),
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


def load(results) -> str:
    """Expert load (max / mean) on validation text, per MoE run and layer."""
    with plt.rc_context(STYLE):
        fig, ax = canvas(height=3.2)
        rows = sorted(
            (r for r in results if r["moe"].get("expert_load")),
            key=lambda r: (
                r["tags"].get("budget") or 0,
                0 if r["tags"].get("budget") else r["training_tokens"],
                r["tags"].get("size") or 0,
                r["run"]["seed"],
            ),
        )
        for i, r in enumerate(rows):
            for layer, v in enumerate(r["moe"]["expert_load"]):
                ax.plot(i, v, "os^Dv"[layer % 5], color=shades("moe", 5)[min(4, layer + 1)], ms=5)
        experts, chosen, _ = routed(rows[0]["run"])
        most = experts / chosen
        ax.axhline(1, color="#8a919c", lw=1)
        ax.text(
            len(rows) - 0.4, 1, "balanced", va="bottom", ha="right", fontsize=8, color="#4a5361"
        )
        ax.set(
            ylabel="max / mean expert load",
            xlabel="MoE run, by d_model",
            ylim=(0.9, max(most * 0.55, 1.05 * max(max(r["moe"]["expert_load"]) for r in rows))),
        )
        ax.set_xticks(range(len(rows)), [str(r["tags"].get("size")) for r in rows], fontsize=8)
        cells = [group_of(r) for r in rows]
        for i, cell in enumerate(cells):
            if i == 0 or cell != cells[i - 1]:
                ax.axvline(i - 0.5, color="#c8cdd5", lw=0.8)
                ax.text(
                    i - 0.4,
                    0.985,
                    cell,
                    transform=ax.get_xaxis_transform(),
                    va="top",
                    fontsize=8,
                    color="#4a5361",
                )
        return svg(fig)


def group_of(r) -> str:
    """What the runs of one group share: a budget, or so many tokens."""
    return (
        f"{r['tags']['budget']:.3g} FLOPs"
        if r["tags"].get("budget")
        else f"{_short(float('{:.3g}'.format(r['training_tokens'])))} tokens"
    )


def known_entropy(analysis) -> str:
    """Excess loss over the true source against D, one line per size, with the derived slope."""
    with plt.rc_context(STYLE):
        fig, axes = canvas(
            max(1, len({e["family"] for e in analysis["known_entropy"]})),
            sharey=True,
            squeeze=False,
        )
        for ax, family in zip(axes[0], sorted({e["family"] for e in analysis["known_entropy"]})):
            rows = [e for e in analysis["known_entropy"] if e["family"] == family]
            for e, colour in zip(rows, shades(family, len(rows))):
                ax.errorbar(
                    e["tokens"],
                    e["excess"],
                    e["se"],
                    fmt=MARK.get(family, "o") + "-",
                    color=colour,
                    lw=1.4,
                    ms=5,
                    label=f"{analysis['dial']} {e['size']}",
                )
            d, y = np.array(rows[-1]["tokens"]), rows[-1]["excess"]
            ax.plot(
                d,
                y[-1] * (d / d[-1]) ** -rows[-1]["derived"],
                "--",
                color="#4a5361",
                lw=1.2,
                label=f"derived: D^-{rows[-1]['derived']:.2f}",
            )
            ax.set(
                xscale="log",
                yscale="log",
                title=LABEL.get(family, family),
                xlabel="D: training tokens",
            )
            log_ticks(
                ax.xaxis, min(min(e["tokens"]) for e in rows), max(max(e["tokens"]) for e in rows)
            )
            log_ticks(
                ax.yaxis, min(min(e["excess"]) for e in rows), max(max(e["excess"]) for e in rows)
            )
            ax.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
            ax.legend(fontsize=9)
        axes[0][0].set_ylabel("loss - true -log p (nats/token)")
        return svg(fig)
