"""How well a quantity that was asked for is known, against a threshold that is said."""

from typing import NamedTuple

import numpy as np

from experiments.laws.fitting import bootstrap

# half a 95% interval may be so wide that the answer can still be used
EXPONENT = 0.05  # of N_opt ~ C^a: a factor 1.26 in N_opt over two decades of compute
FACTOR = 1.5  # N_opt and D_opt at a budget
SHARE = 0.01  # of a loss
# between these shares of the threshold neither "known" nor "open" is safe
KNOWN, OPEN = 0.7, 1.4
THRESHOLDS = {
    "n_exponent": EXPONENT,
    "d_exponent": EXPONENT,
    "n_opt": FACTOR,
    "d_opt": FACTOR,
    "loss": SHARE,
}


class Precision(NamedTuple):
    """word: known | borderline | open; words: how well, with the threshold."""

    word: str
    words: str


def of(name: str, value: float, interval) -> Precision | None:
    """Of a quantity of THRESHOLDS by its 95% interval; None for others and without an interval to
    judge by.
    """
    if name not in THRESHOLDS or value is None or not np.isfinite(value):
        return None
    limit = THRESHOLDS[name]
    if interval is None or not np.isfinite(interval).all():
        return Precision("open", "open: its interval has no end")
    low, high = interval
    if name in ("n_opt", "d_opt"):
        half = np.log(high / low) / 2 if low > 0 else np.inf
        ratio, said = half / np.log(limit), f"within a factor {np.exp(half):.3g}; asked: {limit:g}"
    elif name == "loss":
        ratio = (high - low) / 2 / abs(value) / limit
        said = f"to {100 * ratio * limit:.2g}%; asked: {100 * limit:g}%"
    else:
        ratio = (high - low) / 2 / limit
        said = f"to +-{ratio * limit:.2g}; asked: {limit:g}"
    word = "known" if ratio <= KNOWN else "open" if ratio >= OPEN else "borderline"
    how = "known" if word == "known" else f"{word}: known only"
    return Precision(word, f"{how} {said}")


def answer(name: str, values, centred: bool, levels=()) -> dict:
    """{value, interval, and by name what is known of it} of a fit's value and its draws after it;
    `intervals` at more levels, if asked. centred: the draws' bias is corrected.
    """
    v = np.asarray(values, float)
    draws, centre = v[1:], float(v[0]) if centred else None
    out = {"value": float(v[0]), "interval": None}
    if not len(draws):
        return out
    out["interval"] = bootstrap.interval(draws, centre=centre)
    if levels:
        out["intervals"] = {
            f"{100 * k:g}%": bootstrap.interval(draws, k, centre=centre) for k in levels
        }
    if found := of(name, out["value"], out["interval"]):
        out["verdict"], out["words"] = found
    return out
