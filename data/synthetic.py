"""An infinite source whose every probability is known.

The stream is a sequence of independent facts, three tokens each: two digits that name a key, and a
value.

    key     rank r in 1..M with probability p_r = r^-(1+a) / Z (a = `zipf`, M = 128^2), spread over
            the digit pairs by a fixed
            permutation, so that neighbouring ranks share no digit
    value   one of 64: the key's own with probability 7/8, else uniform over all 64

Digits of the first place, of the second, and values have separate ids (128 + 128 + 64), so the
place in the fact is always visible, and windows start at a fact's first token: every target's true
probability is a table lookup, and its mean is the entropy rate.

The data exponent to expect. A learner that has seen n facts knows, in effect, the keys that
occurred: those with n p_r > 1, that is r < J(n) with J ~ n^(1/(1+a)). What is unlearned is the tail
of the key distribution, sum over r > J of p_r ~ J^-a, and each unlearned key costs a fixed number
of nats on its value; the misjudged probability of rare keys costs the same order. So

    loss - entropy ~ n^(-a / (1 + a))       (Hutter 2021, arXiv 2102.04074, theorem for Zipf data;
                                            exponent 1/3 at a = 1/2)

while J is well below M: the sum is cut off there, and the measured exponent steepens as J nears M.
In the same way a model that can store J keys is left with J^-a: if storage is proportional to N,
loss falls as N^-a in size.
"""

import numpy as np

from data.config import DataError

DIGITS, VALUES, SURE = 128, 64, 7 / 8
KEYS = DIGITS * DIGITS
VOCAB = 2 * DIGITS + VALUES
_TRAIN, _VALIDATION, _WORLD = 1, 2, 3


def _finalise(z: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser, twice."""
    for _ in range(2):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return z


def _uniform(stream: int, seed: int, index: np.ndarray, order: int = 1) -> np.ndarray:
    """Uniform doubles in [0, 1) by counter. `order` 1: seeds 2^29 apart draw the same; 2: all seeds
    below 2^61 have starts of their own (see Data).
    """
    number = np.array([seed * 8 + stream + 1], np.uint64)
    with np.errstate(over="ignore"):
        if order == 1:
            start = (number - np.uint64(1)) % np.uint64(2**32) + np.uint64(1)
            start = start * np.uint64(0x9E3779B97F4A7C15)
        else:
            start = _finalise(number * np.uint64(0x9E3779B97F4A7C15))
        z = _finalise(index.astype(np.uint64) + start)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Synthetic:
    """The source at tail exponent `zipf`. The world (which key has which value) is the same for
    every seed and split.
    """

    def __init__(self, zipf: float, order: int = 2):
        if not zipf > 0:
            raise DataError(
                f"data.zipf={zipf} must be positive: key probabilities fall as rank^-(1 + zipf)"
            )
        p_r = np.arange(1, KEYS + 1) ** -(1.0 + zipf)
        self._cumulative = np.cumsum(p_r / p_r.sum())
        place = np.argsort(_uniform(_WORLD, 0, np.arange(KEYS)), kind="stable")  # rank -> key
        self._place = place
        p_key = np.empty(KEYS)
        p_key[place] = p_r / p_r.sum()
        self._pair = p_key.reshape(DIGITS, DIGITS)
        self._own = (_uniform(_WORLD, 1, np.arange(KEYS)) * VALUES).astype(
            np.int64
        )  # value of each key
        self.zipf, self._order = zipf, order

    @property
    def data_exponent(self) -> float:
        return self.zipf / (1 + self.zipf)

    def facts(self, split: str, seed: int, index: np.ndarray) -> np.ndarray:
        """The facts at `index` (any shape), int32 tokens of shape (*index.shape, 3)."""
        index = np.asarray(index, np.int64)
        stream = _TRAIN if split == "train" else _VALIDATION
        # validation is the same for every seed and order
        which, order = ((stream, seed), self._order) if split == "train" else ((stream, 0), 1)

        def draw(lane):
            return _uniform(*which, index * 4 + lane, order)

        rank = np.minimum(np.searchsorted(self._cumulative, draw(0), side="right"), KEYS - 1)
        key = self._place[rank]
        value = np.where(draw(1) < SURE, self._own[key], (draw(2) * VALUES).astype(np.int64))
        return np.stack([key // DIGITS, DIGITS + key % DIGITS, 2 * DIGITS + value], -1).astype(
            np.int32
        )

    def window(self, split: str, seed: int, index: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` tokens, each from a fact's first token on, no fact in two windows."""
        per = -(-length // 3)
        facts = self.facts(split, seed, np.asarray(index)[:, None] * per + np.arange(per))
        return facts.reshape(len(index), -1)[:, :length]

    def nll(self, tokens: np.ndarray) -> np.ndarray:
        """True -log p in nats of tokens[:, 1:] given what stands before them in the window."""
        t = np.asarray(tokens, np.int64)
        place = np.arange(1, t.shape[1]) % 3
        first = np.take(t, np.arange(1, t.shape[1]) - place, 1)  # first digit of the same fact
        second = np.where(place == 2, np.roll(t, 1, 1)[:, 1:], t[:, 1:]) - DIGITS
        p_first = self._pair.sum(1)

        def pair_of():
            return self._pair[first, np.clip(second, 0, DIGITS - 1)]

        own = self._own.reshape(DIGITS, DIGITS)[first, np.clip(second, 0, DIGITS - 1)]
        p_value = (1 - SURE) / VALUES + SURE * (t[:, 1:] - 2 * DIGITS == own)
        p = np.where(
            place == 0,
            p_first[np.minimum(t[:, 1:], DIGITS - 1)],
            np.where(place == 1, pair_of() / p_first[first], p_value),
        )
        return -np.log(p)

    @property
    def entropy_rate(self) -> float:
        """Nats per token of the infinite stream."""
        key = -(self._pair * np.log(self._pair)).sum()
        other = (1 - SURE) / VALUES
        value = -(SURE + other) * np.log(SURE + other) - (VALUES - 1) * other * np.log(other)
        return float((key + value) / 3)

    @property
    def unigram_entropy(self) -> float:
        """Nats per token of a model that knows how often each token occurs, and nothing of what
        stands before it.
        """
        p_value = SURE * np.bincount(self._own, self._pair.ravel(), VALUES) + (1 - SURE) / VALUES

        def entropy(p):
            return -(p[p > 0] * np.log(p[p > 0])).sum()

        return float(
            np.log(3)
            + (entropy(self._pair.sum(0)) + entropy(self._pair.sum(1)) + entropy(p_value)) / 3
        )
