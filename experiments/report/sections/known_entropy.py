"""Loss above the entropy of a source that is known."""

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from experiments.report.elements import esc, f4, figure_section, table
from experiments.report.labels import LABEL
from experiments.report.plotting import MARK, STYLE, canvas, log_ticks, shades, svg


def draw(analysis) -> str:
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


def section(results, curves, a) -> str:
    if not a["known_entropy"]:
        return ""
    data = [
        [e["family"], e["size"], f"{d:,.0f}", f4(x), f4(se)]
        for e in a["known_entropy"]
        for d, x, se in zip(e["tokens"], e["excess"], e["se"])
    ]
    rows = [
        [e["family"], e["size"], f4(e["exponent"]), f4(e["exponent_last_three"]), f4(e["derived"])]
        for e in a["known_entropy"]
    ]
    slopes = table(["family", a["dial"], "measured exponent", "of the last three", "derived"], rows)
    return figure_section(
        "Above the source's entropy",
        "Loss minus the true source's −log p on the same validation tokens. Dashed: the exponent"
        " derived in data/synthetic.py, a / (1 + a).",
        "".join(
            f"<p class=read><b>{esc(LABEL.get(e['family'], e['family']))}</b>:"
            f" {esc(e['words'])}.</p>"
            for e in a.get("floors", [])
        )
        + draw(a)
        + slopes,
        table(["family", a["dial"], "D", "excess", "s.e."], data),
    )
