"""The figure of a law that was fitted to a table: its points by where they come from, its curves,
and how far each point lies from its curve.
"""

import matplotlib.pyplot as plt
import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import predict
from experiments.laws.runs import selection
from experiments.laws.runs import table as tables
from experiments.report.labels import number
from experiments.report.plotting import STYLE, canvas, log_ticks, styles, svg

GREY = "#8a919c"
CURVES = 12  # sizes whose curves are drawn, at most
# the axis of the left panel, by the inputs of a law: the last of them that the law has
AXES = {"L": "", "N": "N: parameters", "C": "C: training FLOPs", "D": "D: training tokens"}
# columns that say where a row comes from, the first that tells rows apart
ORIGINS = ("kind", "suite", "family", "source_file")


def check(name: str) -> None:
    """Raises FitError where a law's inputs are not on one axis."""
    drawn = [k for k, form in FORMS.items() if _axis(form)]
    if name not in drawn:
        raise FitError(f"--figure is drawn of {', '.join(drawn)}, not of {name}: leave it out")


def _axis(form) -> str:
    """The input on the axis; "" where there is none, or a third one beside N and D."""
    held = [k for k in AXES if k in form.inputs]
    free = set(form.inputs) - set(held)
    plain = form.outcome in ("loss", "error") and not free
    return held[-1] if plain and held and not {"C", "N"} <= set(form.inputs) else ""


def draw(a: dict, table: dict, n: str, c: str, pool: tuple[str, ...], loss: str) -> str:
    """SVG. a: the answer of the fit (table_fit.ask) to the table; loss: its unit, in words."""
    form = FORMS[a["law"]]
    table, _ = selection.of_table(table, bool({"E", "S", "G"} & set(form.inputs)), pool)
    x, y = tables.inputs(form, table, n, c), tables.numbers(table, form.outcome)
    unit = loss if form.outcome == "loss" else form.outcome
    axis, theta = _axis(form), form.theta(**a["parameters"])
    fitted = predict(form, theta, x)[0]
    origin = _origins(table)
    drawn = styles(sorted(set(origin)))
    with plt.rc_context(STYLE):
        fig, (left, right) = canvas(2, width=10.5, height=4.4, width_ratios=(3, 2))
        _curves(left, form, theta, x, axis)
        for name, style in drawn.items():
            own = np.array([o == name for o in origin])
            how = {"color": style.colour, "mec": "white", "mew": 0.6, "ms": 6}
            left.plot(x[axis][own], y[own], style.mark, label=name, **how)
            right.plot(y[own], (y[own] / fitted[own] - 1) * 100, style.mark, **how)
        left.set(xlabel=AXES[axis] or loss, ylabel=unit, title=a["formula"])
        if axis != "L":
            left.set_xscale("log")
            log_ticks(left.xaxis, x[axis].min(), x[axis].max())
        left.legend(fontsize=9)
        right.axhline(0, color=GREY, lw=1)
        right.set(xlabel=f"measured {unit}", ylabel="measured above the law (%)")
        return svg(fig)


def _origins(table: dict) -> list[str]:
    """Where each row comes from."""
    for name in ORIGINS:
        if name in table and table[name].dtype == object:
            found = [str(v) for v in table[name]]
            if len(set(found)) > 1 or name == ORIGINS[-1]:
                return found
    return ["runs"] * len(next(iter(table.values())))


def _curves(ax, form, theta, x: dict, axis: str) -> None:
    """The law along the axis; of a law of N and D a curve for each size, or for some of them."""
    grid = np.geomspace(x[axis].min() / 1.5, x[axis].max() * 1.5, 80)
    if axis == "L":
        grid = np.linspace(x[axis].min() * 0.98, x[axis].max() * 1.02, 80)
    if "N" not in form.inputs or axis == "N":
        ax.plot(grid, predict(form, theta, {axis: grid})[0], color=GREY, lw=1.2)
        return
    sizes = np.unique(x["N"])
    sizes = sizes[np.linspace(0, len(sizes) - 1, min(CURVES, len(sizes))).round().astype(int)]
    for size in sizes:
        line = predict(form, theta, {"N": np.full(80, size), axis: grid})[0]
        ax.plot(grid, line, color=GREY, lw=0.8, alpha=0.8)
        ax.annotate(
            number(size), (grid[-1], line[-1]), fontsize=8, color="#4a5361", va="center", ha="left"
        )
