"""The section of a study of mixtures: the loss of every run on each source apart."""

from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np

from experiments.laws.fitting import bootstrap
from experiments.report import elements, plotting
from experiments.report.elements import esc, f4, span, table
from experiments.report.labels import LABEL
from experiments.report.plotting import STYLE, shades


def rows(results: list[dict], names: list[str]) -> list[dict]:
    """One row for each arm, size, tokens and source: mean loss over seeds with its 95% Student
    interval, and how often the source was read.
    """
    cells = defaultdict(list)
    for r in results:
        key = (r["family"], r["tags"].get("size") or 0, r["training_tokens"])
        for name in names:
            if r["sources"][name]["validation"].get("loss") is not None:
                cells[(*key, name)].append(r["sources"][name])
    out = []
    for (family, size, tokens, name), found in sorted(cells.items()):
        loss, around = bootstrap.student([s["validation"]["loss"] for s in found])
        own = sum(s["training_tokens"] for s in found) / len(found)
        out.append(
            {
                "family": family,
                "size": size,
                "tokens": tokens,
                "source": name,
                "share": own / tokens,
                "epochs": float(np.mean([s["epochs"] for s in found])),
                "loss": loss,
                "interval": around,
                "seeds": len(found),
            }
        )
    return out


def _draw(found: list[dict], names: list[str]) -> str:
    """A panel for each source: loss against its share of what was trained on, a line a size."""
    sizes = sorted({(r["size"], r["tokens"]) for r in found})
    with plt.rc_context(STYLE):
        fig, axes = plotting.canvas(len(names), squeeze=False)
        for ax, name in zip(axes[0], names, strict=True):
            for (size, tokens), colour in zip(sizes, shades("dense", len(sizes)), strict=True):
                own = sorted(
                    (
                        r
                        for r in found
                        if (r["size"], r["tokens"], r["source"]) == (size, tokens, name)
                    ),
                    key=lambda r: r["share"],
                )
                x, y = [r["share"] for r in own], [r["loss"] for r in own]
                bars = [
                    [r["loss"] - r["interval"][0] if r["interval"] else 0 for r in own],
                    [r["interval"][1] - r["loss"] if r["interval"] else 0 for r in own],
                ]
                ax.errorbar(x, y, bars, fmt="o-", color=colour, ms=5, lw=1.4, capsize=3, label=size)
            ax.set(title=name, xlabel="share of training tokens")
        axes[0][0].set_ylabel("validation loss (nats/token)")
        axes[0][-1].legend(title="size", fontsize=9)
        return plotting.svg(fig)


def section(results, curves, a) -> str:
    named = [set(r.get("sources") or {}) for r in results]
    names = sorted(set.intersection(*named)) if named else []
    if not names:
        return ""
    found = rows(results, names)
    data = [
        [
            LABEL.get(r["family"], r["family"]),
            r["size"],
            f"{r['tokens']:,}",
            r["source"],
            f"{r['share']:.1%}",
            f"{r['epochs']:.2f}",
            r["seeds"],
            f4(r["loss"]),
            span(r["interval"], 3),
        ]
        for r in found
    ]
    columns = ["arm", a["dial"], "D (tokens)", "source", "share", "epochs", "seeds", "loss", "95%"]
    reading = (
        "Every run is validated on each source apart, on the same windows whatever its mixture."
        " Points are means over seeds, bars their 95% Student intervals. Epochs say how often a"
        f" source was read: a small one with a large share is read again and again. Sources:"
        f" {esc(', '.join(names))}."
    )
    return elements.figure_section(
        "Loss on each source", reading, _draw(found, names), table(columns, data), opened=True
    )
