"""Decoding from a cache equals the whole forward pass."""

import jax
import numpy as np

from model import account, sample
from model.config import Execution
from model.lm import LM
from tests.model.test_model import (
    forward,
    most_shapes,
    variables,
)


@most_shapes
def test_cached_equals_full(c):
    cached_equals_full(c)


def cached_equals_full(c):
    """Prompts of unequal length, padded on the left: prefill, then token by token, equals the
    forward pass at every position.
    """
    ex, held, rng = Execution(), variables(c), np.random.default_rng(0)
    total, given, slots = c.seq_len, 11, 19
    rows = [rng.integers(0, c.vocab_size, n).astype(np.int32) for n in (total, 6, 9)]
    pad = np.array([total - len(r) for r in rows])
    padded = np.stack([np.concatenate([np.zeros(n, np.int32), r]) for n, r in zip(pad, rows)])
    lm = LM(c, ex)
    logits, cache = jax.jit(lambda v, t: sample.prefill(lm, v, t, pad, slots))(
        held, padded[:, :given]
    )
    one = jax.jit(lambda v, t, slot, cache: sample.decode(lm, v, t, pad, slots, slot, cache))
    out = [logits]
    for slot in range(given, total):
        logits, cache = one(held, padded[:, slot : slot + 1], slot, cache)
        out.append(logits)
    got = np.concatenate(out, 1)
    counted = account.state(c)
    kept = sum(a.size for a in jax.tree.leaves(cache)) / len(rows)
    assert kept == slots * counted.per_token + counted.per_sequence
    want = forward(
        c,
        ex,
        held,
        np.stack([np.concatenate([r, np.zeros(n, np.int32)]) for n, r in zip(pad, rows)]),
    )
    for row, n, a, b in zip(rows, pad, got, want):
        np.testing.assert_allclose(a[n:], b[: len(row)], rtol=1e-4, atol=1e-4)
