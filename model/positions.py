"""Positions: one table, one signature, interchangeable by the field `positions`.

An entry says what is added to the embeddings (`embed(module, c) -> _TD or None`), how queries and keys are turned
(`rotate(x_BTHK, c) -> x_BTHK`), and how many parameters it owns.
"""

from typing import NamedTuple
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from model.params import declare


class Position(NamedTuple):
    embed: Callable
    rotate: Callable
    parameters: Callable


def _sinusoid_TD(c):
    """sin | cos halves of t / 10000^(2i/D) (Vaswani et al. 2017, arXiv 1706.03762, section 3.5; halves, not interleaved)."""
    half = c.d_model // 2
    angle = np.arange(c.seq_len)[:, None] * 10_000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.sin(angle), np.cos(angle)], -1).astype(np.float32)


def _learned_TD(module, c):
    return declare(module, "positions", (c.seq_len, c.d_model), ("seq", "act_embed"), 0.02)  # GPT-2


def _rope(x_BTHK, c):
    """Rotates pairs (i, i + K/2) by t * theta^(-2i/K) (Su et al. 2021, arXiv 2104.09864, eq 34)."""
    half = c.d_head // 2
    angle = np.arange(x_BTHK.shape[1])[:, None, None] * c.rope_theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    a, b = jnp.split(x_BTHK.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BTHK.dtype)


def _nothing(module, c):
    return None


def _same(x_BTHK, c):
    return x_BTHK


POSITIONS = {
    "none": Position(_nothing, _same, lambda c: 0),
    "sinusoidal": Position(lambda module, c: _sinusoid_TD(c), _same, lambda c: 0),
    "learned": Position(_learned_TD, _same, lambda c: c.seq_len * c.d_model),
    "rope": Position(_nothing, _rope, lambda c: 0),
}
