"""MoE minus dense: on the same tokens seed by seed, and at equal spent FLOPs."""

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.ticker

from experiments.laws.comparisons.moe_gaps import what_is_equal
from experiments.report.elements import esc, f4, figure_section, span, table
from experiments.report.plotting import COLOUR, STYLE, canvas, shades, svg


def _between(rows: list[dict], field: str) -> str:
    low, high = (f(g[field] for g in rows) for f in (min, max))
    return f"x{low:.3f}" + (f" to {high:.3f}" if high - low > 5e-4 else "")


def _ratios(rows: list[dict]) -> str:
    """Active parameters, MoE over dense, as measured over all cells."""
    return ", active parameters " + _between(rows, "active_ratio") if rows else ""


def _same(rows: list[dict]) -> str:
    same = all(g["tokens_ratio"] == 1 for g in rows)
    return "the same tokens" if same else "FLOPs " + _between(rows, "flops_ratio")


def draw(analysis) -> str:
    """MoE minus dense: on the same tokens by size, and between the best of each at equal spent
    FLOPs.
    """
    with plt.rc_context(STYLE):
        rows = analysis["equal_flops"]
        fig, axes = (
            canvas(2, gridspec_kw={"width_ratios": [1.6, 1]}) if rows else canvas(1, squeeze=False)
        )
        axes = axes if rows else axes[0]

        # at one budget every size has its own tokens, in a grid of tokens the same
        def cell(g):
            return (g["budget"] or 0, 0 if g["budget"] else g["tokens"])

        ax, cells = axes[0], sorted({cell(g) for g in analysis["gaps"]})
        for (budget, tokens), colour in zip(cells, shades("moe", len(cells))):
            own = [g for g in analysis["gaps"] if cell(g) == (budget, tokens)]
            ax.plot(
                [g["size"] for g in own],
                [g["gap"] for g in own],
                "o-",
                color=colour,
                lw=1.4,
                ms=5,
                label=f"{budget:.3g} FLOPs" if budget else f"{tokens:,} tokens",
            )
            for g in own:
                if g["interval"]:
                    ax.errorbar(
                        g["size"],
                        g["gap"],
                        [[g["gap"] - g["interval"][0]], [g["interval"][1] - g["gap"]]],
                        color="#222",
                        capsize=4,
                        lw=1.4,
                        zorder=5,
                    )
        ax.axhline(0, color="#8a919c", lw=1)
        ax.set(
            title=_same(analysis["gaps"]) + _ratios(analysis["gaps"]),
            xlabel=analysis["dial"],
            ylabel=f"MoE - dense ({analysis['loss_unit']})",
            xscale="log",
        )
        sizes = sorted({g["size"] for g in analysis["gaps"]})
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        ax.set_xticks(sizes, [str(s) for s in sizes])
        ax.legend(fontsize=9)
        if not rows:
            return svg(fig)
        ax = axes[1]
        for i, e in enumerate(rows):
            error = (
                [[e["difference"] - e["interval"][0]], [e["interval"][1] - e["difference"]]]
                if e["interval"]
                else None
            )
            ax.errorbar(i, e["difference"], error, fmt="D", color=COLOUR["moe"], capsize=4, ms=6)
        ax.axhline(0, color="#8a919c", lw=1)
        spent = [f"{e['flops']:.2g}".replace("e+", "e") for e in rows]
        ax.set_xticks(range(len(rows)), spent)
        ax.set(
            title="best of each, equal FLOPs",
            xlabel="FLOPs spent",
            xlim=(-0.6, max(1, len(rows)) - 0.4),
        )
        return svg(fig)


def _gap_tables(a) -> str:
    first = table(
        [a["dial"], "budget", "seeds", "MoE - dense", "95%"],
        [
            [
                g["size"],
                f"{g['budget'] or 0:.3g}",
                g["seeds"],
                f"{g['gap']:+.4f}",
                span(g["interval"]),
            ]
            for g in a["gaps"]
        ],
        0,
    )
    pairs = table(
        [
            *(a["dial"], "budget", "seed", "tokens", "dense", "MoE", "gap"),
            *("FLOPs ratio", "active ratio", "tokens ratio"),
        ],
        [
            [
                p["size"],
                f"{p['budget'] or 0:.3g}",
                p["seed"],
                f"{p['tokens']:,}",
                f4(p["dense"]),
                f4(p["moe"]),
                f"{p['gap']:+.4f}",
                *(f"{p[k]:.4f}" for k in ("flops_ratio", "active_ratio", "tokens_ratio")),
            ]
            for p in a["pairs"]
        ],
        0,
    )
    best = table(
        ["FLOPs spent", "MoE / dense at the budget", "dense", "MoE", "difference", "95%"],
        [
            [
                f"{e['flops']:.3g}",
                "" if e["ratio"] is None else f"{e['ratio']:.3f}",
                f4(e["reference_loss"]),
                f4(e["loss"]),
                f"{e['difference']:+.4f}",
                span(e["interval"]),
            ]
            for e in a["equal_flops"]
        ],
        0,
    )
    return f"{first}<p>Pairs</p>{pairs}<p>Best of each family at equal spent FLOPs</p>{best}"


_below, _above = (lambda span: span[1] < 0), (lambda span: span[0] > 0)


def _gap_reading(a) -> str:
    seeds = [g for g in a["gaps"] if g["interval"]]
    order = (
        "read the same tokens in the same order"
        if all(g["tokens_ratio"] == 1 for g in a["gaps"])
        else "read the same text in the same order, one of them less of it"
    )
    equal = what_is_equal(a["gaps"], a["c_convention"])
    text = f"Both members of a pair {order}, {esc(equal)}, MoE over dense. "
    if seeds:
        below, above = (sum(f(g["interval"]) for g in seeds) for f in (_below, _above))
        text += (
            f"Beyond the noise of the seeds MoE is better in {below} of {len(seeds)} cells, dense"
            f" in {above}; in the others the sign is open. "
        )
        text += (
            "Clark et al. 2022 (arXiv 2202.01169) find MoE better at these sizes; where a gap has"
            " the other sign, read it against the black bars (one seed's noise) and the expert load"
            " below. "
        )
    if pairs := (a.get("gain_trends") or {}).get("words", {}).get("pairs"):
        text += f"{esc(pairs[0].upper() + pairs[1:])} (least squares in log N and log D). "
    return text + "Black bars: 95% Student intervals over seeds."


def section(results, curves, a) -> str:
    if not any(g["budget"] for g in a["gaps"]):
        return ""
    return figure_section("Dense against MoE", _gap_reading(a), draw(a), _gap_tables(a))
