"""How evenly the experts are used, by layer."""

import matplotlib.pyplot as plt

from experiments.laws.runs.sweep_folder import routed
from experiments.report.elements import figure_section, table
from experiments.report.plotting import STYLE, canvas, shades, short, svg


def group_of(r) -> str:
    """What the runs of one group share: a budget, or so many tokens."""
    return (
        f"{r['tags']['budget']:.3g} FLOPs"
        if r["tags"].get("budget")
        else f"{short(float('{:.3g}'.format(r['training_tokens'])))} tokens"
    )


def draw(results) -> str:
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


def section(results, curves, a) -> str:
    routed = [r for r in results if r["moe"].get("expert_load")]
    if not routed:
        return ""

    def text(values, digits):
        return "  ".join(f"{x:.{digits}f}" for x in values)

    rows = [
        [
            r["id"],
            r["tags"].get("size"),
            group_of(r),
            text(r["moe"]["expert_load"], 2),
            text(r["moe"]["router_entropy"], 2),
            text(r["moe"]["balance_loss"], 3),
        ]
        for r in routed
    ]
    columns = [
        "run",
        "d_model",
        "of",
        "max/mean load by layer",
        "router entropy (nats)",
        "balance loss",
    ]
    reading = (
        "Assignments of the busiest expert over the mean, on validation batches; one mark per MoE"
        " layer (circle first). 1 is perfect balance; nothing is dropped at any load."
    )
    return figure_section("Expert load", reading, draw(routed), table(columns, rows))
