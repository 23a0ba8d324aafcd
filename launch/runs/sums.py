"""What is kept of the losses of the validation tokens while they pass: sums of every window, and of
every bin of positions. The losses themselves, windows x T of them, are not held.
"""

import math

import numpy as np

BINS = 32  # of positions, at most


def bins(seq_len: int, most: int = BINS) -> np.ndarray:
    """First positions of the bins, from 1 on: log-spaced and all different, `most` of them, or one
    for every position where there are fewer. Position t is of the token that is predicted from t
    tokens of the window (Kaplan et al. 2020, arXiv 2001.08361, fig. 7).
    """
    first = [1]
    for left in range(min(most, seq_len), 1, -1):
        last = first[-1]
        first.append(max(last + 1, round(last * ((seq_len + 1) / last) ** (1 / left))))
    return np.array(first)


class Sums:
    """Sums over tokens of values (windows, T) that come a few windows at a time."""

    def __init__(self, seq_len: int):
        self.seq_len, self._first = seq_len, bins(seq_len)
        self._sums: list[np.ndarray] = []
        self._squares = 0.0
        # of the means of a window's tokens in each bin
        self._bins, self._bin_squares = np.zeros((2, len(self._first)))

    def add(self, values_BT: np.ndarray) -> None:
        values_BT = np.asarray(values_BT, np.float64)
        self._sums.append(values_BT.sum(1))
        self._squares += float((values_BT**2).sum())
        means = np.add.reduceat(values_BT, self._first - 1, 1) / self._widths()
        self._bins += means.sum(0)
        self._bin_squares += (means**2).sum(0)

    def _widths(self) -> np.ndarray:
        return np.diff([*self._first, self.seq_len + 1])

    @property
    def windows(self) -> np.ndarray:
        """The sum of each window."""
        return np.concatenate(self._sums)

    @property
    def tokens(self) -> int:
        return len(self.windows) * self.seq_len

    @property
    def mean(self) -> float:
        return float(self.windows.sum() / self.tokens)

    def se(self) -> float:
        """Of the mean, as if tokens were independent."""
        return float(_error(self.windows.sum(), self._squares, self.tokens))

    def se_windows(self) -> float:
        """Of the mean, over windows: the tokens of one are not independent. NaN for one window."""
        means = self.windows / self.seq_len
        return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan

    def by_position(self) -> dict[str, list]:
        """Of each bin: its first position, tokens, mean and standard error over windows."""
        n = len(self.windows)
        se = _error(self._bins, self._bin_squares, n)
        return {
            "first": self._first.tolist(),
            "tokens": (n * self._widths()).tolist(),
            "loss": (self._bins / n).tolist(),
            "se": se.tolist(),
        }


def _error(total, squares, n: int):
    """The standard error of the mean of n values, of which sum and sum of squares are known."""
    if n < 2:
        return np.full_like(total, np.nan)
    return np.sqrt(np.maximum(0.0, squares - total**2 / n) / (n - 1) / n)
