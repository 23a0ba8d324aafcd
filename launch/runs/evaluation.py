"""A trained state on the validation windows, in as many sequences at a time as fit beside it."""

import math
from typing import NamedTuple

import jax
import numpy as np

from launch.devices import choice
from launch.devices import mesh as meshes
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


def evaluate(p, variables, dataset) -> Evaluation:
    """Evaluates on all validation windows, fewer at a time where memory runs out."""
    windows, text_bytes = dataset.counted_validation()
    rows = p.eval_batch
    while True:
        try:
            nll, stats = _nll(p, variables, windows, rows)
            break
        except Exception as e:
            # other processes would wait for this one
            alone = jax.process_count() == 1
            if not alone or rows <= p.eval_unit or not choice.out_of_memory(e):
                raise
        rows = choice.halved(rows, p.eval_unit)  # outside the except: the error holds arrays
    true = dataset.true_nll(windows)
    excess = None if true is None else nll - true

    def se(a):
        return float(a.std(ddof=1) / math.sqrt(a.size))

    return Evaluation(
        float(nll.mean()),
        se(nll),
        se(nll.mean(1)) if len(nll) > 1 else float("nan"),
        # ids whose text nobody knows stand for no bytes
        float(nll.sum() / math.log(2) / text_bytes.sum()) if text_bytes.sum() else math.nan,
        nll.size,
        None if excess is None else float(excess.mean()),
        None if excess is None else se(excess),
        _statistics(p, stats),
        _by_source(dataset, nll, text_bytes),
    )


def _by_source(dataset, nll, text_bytes) -> dict:
    """The windows of each source of a mixture apart."""
    out = {}
    for k, name in enumerate(dataset.names):
        here = dataset.validation_sources() == k
        own, size = nll[here], float(text_bytes[here].sum())
        out[name] = {
            "loss": float(own.mean()),
            "se": float(own.mean(1).std(ddof=1) / math.sqrt(len(own))) if len(own) > 1 else None,
            "bits_per_byte": float(own.sum() / math.log(2) / size) if size else None,
            "windows": len(own),
        }
    return out


def _statistics(p, stats: list[dict]) -> dict:
    """Of all batches together: an expert's load is that over all of the text."""
    means = jax.tree.map(lambda *a: np.mean(a, 0), *stats)
    return {k: v.tolist() for k, v in routing.summary(p.layout.lm.m, means).items()}


def _nll(p, variables, windows, rows: int):
    """(negative log-likelihood of every token, statistics of every batch). The last batch is filled
    up with the first windows, and the filling left out: in a routing group tokens compete for the
    capacity of experts, as other text would, and copies of one text would not.
    """
    out, stats, n = [], [], len(windows)
    counted = n // BLOCK * BLOCK or n  # the same windows, however many at a time
    for i in range(0, n, rows):
        full = windows[np.arange(i, i + rows) % n]
        batch = meshes.put(full, meshes.batch_sharding(p.layout.mesh))
        nll, s = p.evaluate(rows)(variables, batch)
        out.append(np.asarray(nll, np.float64)[: n - i])
        if i + rows <= counted or not stats:
            stats.append(s)
    return np.concatenate(out), stats
