"""Which source each training window comes from: shares in thousandths, in a pattern of a thousand
windows that repeats. So the shares of any thousand windows in a row are exact, and the source of a
window is looked up, not drawn.
"""

import dataclasses

import numpy as np

from data import name_and_fields
from data.config import Data, DataError

PERIOD = 1000


class Mixture:
    """`names` in their order, and `counts`: how many of a thousand windows each has."""

    def __init__(self, names: tuple[str, ...], counts: np.ndarray):
        self.names, self.counts = names, counts
        # each source's windows are spread evenly over the period
        places = [(2 * j + 1) / (2 * c) for c in counts for j in range(c)]
        source = np.repeat(np.arange(len(names)), counts)
        self._source = source[np.lexsort((source, places))]
        self._rank = np.zeros(PERIOD, np.int64)  # of a window among its source's own
        for s in range(len(names)):
            here = self._source == s
            self._rank[here] = np.arange(here.sum())

    def place(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source of the windows `i`, and the number of each among the windows of its source."""
        period, at = np.divmod(np.asarray(i, np.int64), PERIOD)
        source = self._source[at]
        return source, period * self.counts[source] + self._rank[at]

    def taken(self, windows: int) -> np.ndarray:
        """How many of the first `windows` windows each source has."""
        period, rest = divmod(windows, PERIOD)
        first = np.bincount(self._source[:rest], minlength=len(self.names))
        return period * self.counts + first


def sources(d: Data) -> dict[str, Data]:
    """The sources of a mixture by name, each as data of its own. Raises DataError."""
    out = {}
    for part in name_and_fields.split(d.sources):
        name, equals, text = (t.strip() for t in part.partition("="))
        if not equals or not name.replace("_", "").replace("-", "").isalnum():
            raise DataError(
                f"data.sources: write {part!r} as NAME=SOURCE, such as web=jsonl(path=web/*.jsonl)"
            )
        if name in out:
            raise DataError(f"data.sources has {name} twice")
        kind, fields = name_and_fields.parse(text, f"data.sources: {name}")
        path, held_out = fields.pop("path", ""), fields.pop("validation_path", "")
        inside = ",".join(f"{k}={v!r}" for k, v in fields.items())
        source = f"{kind}({inside})" if inside else kind
        if kind == "synthetic":
            raise DataError(
                "data.sources: synthetic has a vocabulary of its own, it cannot be mixed"
            )
        out[name] = dataclasses.replace(
            d,
            source=source,
            path=path,
            validation_path=held_out,
            sources="",
            mixture="",
            unique_tokens=0,
            content="",
        )
    return out


def parse(d: Data) -> Mixture:
    """The shares that `d` names. Raises DataError."""
    names = tuple(sources(d))
    counts, seen = dict.fromkeys(names, 0), set()
    for part in name_and_fields.split(d.mixture):
        name, _, share = (t.strip() for t in part.partition("="))
        if name not in counts:
            raise DataError(
                f"data.mixture names {name!r}, data.sources has {', '.join(names) or 'none'}"
            )
        try:
            thousandths = float(share) * PERIOD
        except ValueError:
            raise DataError(
                f"data.mixture: write {part!r} as NAME=SHARE, such as web=0.7"
            ) from None
        if not 0 <= thousandths <= PERIOD or abs(thousandths - round(thousandths)) > 1e-6:
            raise DataError(
                f"data.mixture: {part} must lie in 0 .. 1, in thousandths (three decimals)"
            )
        if name in seen:
            raise DataError(f"data.mixture has {name} twice")
        seen.add(name)
        counts[name] = round(thousandths)
    if sum(counts.values()) != PERIOD:
        raise DataError(
            f"data.mixture={d.mixture}: the shares sum to {sum(counts.values()) / PERIOD:g}, not 1"
        )
    return Mixture(names, np.array(list(counts.values())))
