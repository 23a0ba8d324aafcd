"""The coordinate check as a table, a figure and JSON."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.coordinates.measure import KEEPS, QUANTITIES, Checked
from experiments.report import plotting
from experiments.report.plotting import STYLE

COLOURS = dict(
    zip(
        QUANTITIES,
        (*plotting.MORE[:3], plotting.GREEN, plotting.MORE[3], plotting.BLUE, plotting.ORANGE),
    )
)


def as_json(about: dict, checked: list[Checked]) -> dict:
    return {
        **about,
        "keeps": KEEPS,
        "parametrisations": {
            c.parametrisation: {
                r.quantity: {k: v for k, v in r._asdict().items() if k != "quantity"}
                for r in c.rows
            }
            for c in checked
        },
    }


def _slope(value: float | None) -> str:
    if value is None:
        return f"{'-':>8} "
    return f"{value:+8.2f}{'*' if abs(value) > KEEPS else ' '}"


def text(about: dict, checked: list[Checked]) -> str:
    """A table of slopes for each parametrisation, and what moved."""
    sizes = ", ".join(map(str, about["sizes"]))
    out = [
        f"log-log slopes of root mean squares over {about['dial']} {sizes};"
        f" {about['seeds']} seeds, {about['updates']} updates at lr {about['lr']:g}"
    ]
    for c in checked:
        out += ["", f"{c.parametrisation:<28}{'start':>9}{'end':>9}{'update':>9}"]
        for r in c.rows:
            slopes = (r.start_slope, r.end_slope, r.update_slope)
            out.append(f"  {r.quantity:<26}" + "".join(map(_slope, slopes)).rstrip())
        moved = c.moved()
        most = max(moved, key=lambda m: abs(m[2]), default=None)
        said = f"all slopes of end and update within {KEEPS:g} of 0"
        if most:
            said = f"{len(moved)} slopes of end and update beyond {KEEPS:g}, most the"
            said += f" {most[1]} of {most[0]}"
        out.append(f"  {said}")
    return "\n".join(out)


def figure(about: dict, checked: list[Checked]):
    """A column for each parametrisation: sizes after the updates, and of what they changed."""
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            2,
            len(checked),
            figsize=(4.4 * len(checked), 6.4),
            layout="constrained",
            squeeze=False,
            sharex=True,
            sharey="row",
        )
        for column, c in zip(axes.T, checked):
            for ax, what in zip(column, ("end", "update")):
                for r in c.rows:
                    values, own = getattr(r, what), getattr(r, f"{what}_slope")
                    if own is None:
                        continue
                    ax.plot(
                        about["sizes"],
                        values,
                        "o-",
                        color=COLOURS[r.quantity],
                        ms=4,
                        lw=1.4,
                        label=f"{r.quantity} {own:+.2f}",
                    )
                ax.set(xscale="log", yscale="log")
                ax.minorticks_off()
                ax.set_xticks(about["sizes"], [str(n) for n in about["sizes"]])
                ax.legend(fontsize=7.5, ncol=2, title="slopes", title_fontsize=7.5)
            column[0].set_title(c.parametrisation)
            column[1].set_xlabel({"width": "d_model", "depth": "layers"}[about["dial"]])
        for ax, label in zip(
            axes[:, 0], ("after the updates (rms)", "changed by the updates (rms)")
        ):
            ax.set_ylabel(label)
        for row in axes:
            low, high = row[0].get_ylim()
            room = np.log10(high / low) * 0.35  # for the legends
            row[0].set_ylim(low, high * 10**room)
        return fig
