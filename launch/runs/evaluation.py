"""A trained state on the validation windows, in as many sequences at a time as fit beside it."""

import math
from typing import NamedTuple

import jax
import numpy as np

from launch.devices import choice
from launch.devices import mesh as meshes
from launch.runs.sums import Sums
from model.mlps import routing

BLOCK = 32  # windows: statistics of experts are those of whole blocks


class Evaluation(NamedTuple):
    """Cross-entropy on the validation windows. Standard errors: over tokens, and over windows
    (tokens of a window are not independent). `excess` is against the true source, where that is
    known.
    """

    loss: float
    se: float
    se_windows: float
    bits_per_byte: float
    tokens: int
    excess: float | None
    excess_se: float | None
    statistics: dict
    sources: dict  # of a mixture: name -> loss, se, bits_per_byte, windows
    by_position: dict  # by bins of position: first position, tokens, loss, se over windows


class _Sums:
    """Of one model over the validation windows."""

    def __init__(self, dataset, seq_len: int):
        self.dataset, self.nll, self.excess = dataset, Sums(seq_len), Sums(seq_len)

    def add(self, tokens, nll_BT) -> None:
        self.nll.add(nll_BT)
        if (true := self.dataset.true_nll(tokens)) is not None:
            self.excess.add(nll_BT - true)

    def made(self, p, stats: list[dict]) -> Evaluation:
        windows, text_bytes = self.dataset.counted_validation()
        known = self.dataset.true_nll(windows[:1]) is not None
        nll, size = self.nll, text_bytes.sum()
        return Evaluation(
            nll.mean,
            nll.se(),
            nll.se_windows(),
            # ids whose text nobody knows stand for no bytes
            float(nll.windows.sum() / math.log(2) / size) if size else math.nan,
            nll.tokens,
            self.excess.mean if known else None,
            self.excess.se() if known else None,
            _statistics(p, stats),
            _by_source(self.dataset, nll, text_bytes),
            nll.by_position(),
        )


def evaluate(p, variables, dataset) -> Evaluation:
    """Evaluates on all validation windows, fewer at a time where memory runs out."""
    sums, stats = _summed(p, variables, {...: dataset})
    return sums[...].made(p, stats)


def evaluate_pack(p, variables, datasets: dict) -> dict[int, Evaluation]:
    """`evaluate` of those members of a pack whose places `datasets` names. Their validation windows
    are the same.
    """
    sums, stats = _summed(p, variables, datasets)

    def of(place):
        return jax.tree.map(lambda a: np.asarray(a)[place], stats)

    return {place: s.made(p, of(place)) for place, s in sums.items()}


def _summed(p, variables, datasets: dict) -> tuple[dict, list[dict]]:
    """({index into what the program gives: sums}, statistics of every batch)."""
    windows, _ = next(iter(datasets.values())).counted_validation()
    rows = p.eval_batch
    while True:
        sums = {k: _Sums(dataset, windows.shape[1] - 1) for k, dataset in datasets.items()}

        def add(tokens, nll, sums=sums):
            for k, s in sums.items():
                s.add(tokens, nll[k])

        try:
            return sums, _passed(p, variables, windows, rows, add)
        except Exception as e:
            # other processes would wait for this one
            alone = jax.process_count() == 1
            if not alone or rows <= p.eval_unit or not choice.out_of_memory(e):
                raise
        rows = choice.halved(rows, p.eval_unit)  # outside the except: the error holds arrays


def _by_source(dataset, nll: Sums, text_bytes) -> dict:
    """The windows of each source of a mixture apart."""
    out = {}
    for k, name in enumerate(dataset.names):
        here = dataset.validation_sources() == k
        own, size = nll.windows[here], float(text_bytes[here].sum())
        means = own / nll.seq_len
        out[name] = {
            "loss": float(means.mean()),
            "se": float(means.std(ddof=1) / math.sqrt(len(own))) if len(own) > 1 else None,
            "bits_per_byte": float(own.sum() / math.log(2) / size) if size else None,
            "windows": len(own),
        }
    return out


def _statistics(p, stats: list[dict]) -> dict:
    """Of all batches together: an expert's load is that over all of the text."""
    means = jax.tree.map(lambda *a: np.mean(a, 0), *stats)
    return {k: v.tolist() for k, v in routing.summary(p.layout.lm.m, means).items()}


def _passed(p, variables, windows, rows: int, add) -> list[dict]:
    """Calls `add` with windows and the negative log-likelihood of each of their tokens (of a pack
    with a leading axis of members), `rows` of them at a time; returns the statistics of every
    batch. The last batch is filled up with the first windows, and the filling left out: in a
    routing group tokens compete for the capacity of experts, as other text would, and copies of
    one text would not.
    """
    stats, n = [], len(windows)
    counted = n // BLOCK * BLOCK or n  # the same windows, however many at a time
    for i in range(0, n, rows):
        full = windows[np.arange(i, i + rows) % n]
        batch = meshes.put(full, meshes.batch_sharding(p.layout.mesh))
        nll, s = p.evaluate(rows)(variables, batch)
        add(windows[i : i + rows], np.asarray(nll, np.float64)[..., : n - i, :])
        if i + rows <= counted or not stats:
            stats.append(s)
    return stats
