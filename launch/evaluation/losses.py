"""Losses of one model over windows of text: in all, by position, and against another model's on the
same windows.
"""

import math

import numpy as np

from launch.evaluation.score import Sequence
from launch.runs.sums import bins


class Losses:
    """Sums of every window and every bin of positions. bytes_W: of text in each window."""

    def __init__(self, bytes_W: np.ndarray, longest: int):
        self.bytes_W, self._first = np.asarray(bytes_W, np.int64), bins(longest)
        self._sums_WP, self._tokens_WP = np.zeros((2, len(self.bytes_W), len(self._first)))
        self._squares = 0.0

    def add(self, window: int, sequence: Sequence, nll: np.ndarray) -> None:
        """The counted tokens of a sequence that stands in a window."""
        first = sequence.skip + 1  # position t is predicted from t tokens
        at = np.searchsorted(self._first, np.arange(first, first + len(nll)), side="right") - 1
        np.add.at(self._sums_WP[window], at, nll)
        np.add.at(self._tokens_WP[window], at, 1)
        self._squares += float((nll**2).sum())

    @property
    def nats_W(self) -> np.ndarray:
        """Of each window."""
        return self._sums_WP.sum(1)

    def made(self) -> dict:
        """The fields of a result's `validation` (docs/records.md), and the standard error of bits
        per byte, over windows.
        """
        tokens_W = self._tokens_WP.sum(1)
        total, n = self.nats_W.sum(), int(tokens_W.sum())
        spread = max(0.0, self._squares - total**2 / n) / max(1, n - 1)
        bits, bits_se = ratio(self.nats_W / math.log(2), self.bytes_W)
        return {
            "loss": float(total / n),
            "se": math.sqrt(spread / n) if n > 1 else math.nan,
            "se_windows": ratio(self.nats_W, tokens_W)[1],
            "bits_per_byte": bits,
            "bits_per_byte_se": bits_se,
            "tokens": n,
            "bytes": int(self.bytes_W.sum()),
        }

    def by_position(self) -> dict[str, list]:
        """Of each bin of positions: the first, tokens, loss and its standard error over windows, as
        results have them (docs/records.md).
        """
        held = np.flatnonzero(self._tokens_WP.sum(0))
        pairs = [ratio(self._sums_WP[:, p], self._tokens_WP[:, p]) for p in held]
        return {
            "first": self._first[held].tolist(),
            "tokens": self._tokens_WP.sum(0)[held].astype(int).tolist(),
            "loss": [mean for mean, _ in pairs],
            "se": [se for _, se in pairs],
        }

    def against(self, other: "Losses") -> tuple[float, float]:
        """Bits per byte above the other's, and the standard error of this difference: windows are
        compared with themselves, so that what is hard in a text is no noise.
        """
        return ratio((self.nats_W - other.nats_W) / math.log(2), self.bytes_W)


def ratio(sums_W: np.ndarray, sizes_W: np.ndarray) -> tuple[float, float]:
    """Sum over sum, and its standard error over windows as independent draws (Cochran, Sampling
    Techniques, 1977, eq 2.39, without the correction of finite populations); NaN for one window.
    """
    n, size = len(sums_W), float(sizes_W.sum())
    mean = float(sums_W.sum()) / size
    if n < 2:
        return mean, math.nan
    residual_W = sums_W - mean * sizes_W
    return mean, float(math.sqrt(n / (n - 1) * (residual_W**2).sum()) / size)
