"""Positions: one table, one signature, interchangeable by the field `positions`.

An entry says what is added to the embeddings (`embed(module, c, at) -> _TD, _BTD or None`), how
queries and keys are turned (`rotate(x_BTHK, c, at) -> x_BTHK`), what is added to the scores
(`bias(c, at, keys) -> _HTJ, _BHTJ or None`), and how many parameters it owns. `at` and `keys` are
whole positions, (T,) or (B, T); numpy's where they are known before the program runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from model.config import Model
from model.context import on_device
from model.params import declare, precise


class Position(NamedTuple):
    embed: Callable
    rotate: Callable
    bias: Callable
    parameters: Callable


def _space(at):
    return np if isinstance(at, np.ndarray) else jnp


def _sinusoid(module, c, at):
    """sin | cos halves; wavelengths from 2 pi to 10,000 x 2 pi in a geometric progression, as the
    text of Vaswani et al. 2017 (arXiv 1706.03762, section 3.5) has it and as tensor2tensor, fairseq
    and XGLM compute it (exponent i / (D/2 - 1)).
    """
    half = c.d_model // 2
    angle = (at + c.position_offset)[..., None] * 10_000.0 ** (-np.arange(half) / max(1, half - 1))
    xp = _space(at)
    return xp.concatenate([xp.sin(angle), xp.cos(angle)], -1).astype(np.float32)


def _learned(module, c, at):
    table_TD = declare(
        module, "positions", (c.seq_len + c.position_offset, c.d_model), ("seq", "act_embed"), 0.02
    )  # GPT-2
    if isinstance(at, np.ndarray):
        return table_TD[c.position_offset : c.position_offset + at.size]
    return table_TD[jnp.clip(at + c.position_offset, 0, table_TD.shape[0] - 1)]


def rope(x_BTHK, c: Model, at):
    """Rotates pairs of the first rope_fraction of K by t * theta^(-2i/K) (Su et al. 2021, arXiv
    2104.09864, eq 34). The pairs are (i, i + K/2), or (2i, 2i + 1) if interleaved; the order of the
    output is that of the input.
    """
    half = rotated_pairs(c, x_BTHK.shape[-1])
    angle = at[..., None, None] * c.rope_theta ** (-np.arange(half) / half)
    xp = _space(at)
    cos, sin = xp.cos(angle).astype(np.float32), xp.sin(angle).astype(np.float32)
    turned, rest = precise(x_BTHK[..., : 2 * half]), x_BTHK[..., 2 * half :]
    if c.rope_interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        out = jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(turned.shape)
    else:
        a, b = jnp.split(turned, 2, -1)
        out = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    out = out.astype(x_BTHK.dtype)
    return jnp.concatenate([out, rest], -1) if rest.shape[-1] else out


def rotated_pairs(c: Model, width: int) -> int:
    return int(width * c.rope_fraction) // 2


def slopes(n_heads: int) -> np.ndarray:
    """ALiBi's slope of each head: 2^(-8h/H) for a power of two, else those of the power below and
    every other one of the next (Press et al. 2022, arXiv 2108.12409, section 3 and appendix; as in
    BLOOM).
    """
    below = 2 ** (n_heads.bit_length() - 1)
    whole = 2.0 ** (-8 * np.arange(1, below + 1) / below)
    between = 2.0 ** (-4 * np.arange(1, 2 * (n_heads - below), 2) / below)
    return np.concatenate([whole, between]).astype(np.float32)


def _alibi(c, at, keys):
    distance = on_device(keys)[..., None, :] - on_device(at)[..., :, None]
    return slopes(c.n_heads)[:, None, None] * distance[..., None, :, :].astype(jnp.float32)


def _nothing(*_):
    return None


def _same(x_BTHK, c, at):
    return x_BTHK


POSITIONS = {
    "none": Position(_nothing, _same, _nothing, lambda c: 0),
    "sinusoidal": Position(_sinusoid, _same, _nothing, lambda c: 0),
    "learned": Position(
        _learned, _same, _nothing, lambda c: (c.seq_len + c.position_offset) * c.d_model
    ),
    "rope": Position(_nothing, rope, _nothing, lambda c: 0),
    "alibi": Position(_nothing, _same, _alibi, lambda c: 0),
}


def check(c: Model) -> None:
    """Raises ValueError in words that say what to change."""
    if c.positions == "sinusoidal" and c.d_model % 2:
        raise ValueError(f"sinusoidal positions need an even d_model, not {c.d_model}")
    if c.position_offset and c.positions not in ("sinusoidal", "learned"):
        raise ValueError(
            f"model.position_offset={c.position_offset} is read by sinusoidal and learned positions"
            f" alone, not by {c.positions}"
        )
    if not 0 < c.rope_fraction <= 1 or c.rope_theta <= 0:
        raise ValueError(
            f"model.rope_fraction={c.rope_fraction} must lie in (0, 1],"
            f" model.rope_theta={c.rope_theta} above 0"
        )
