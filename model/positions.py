"""Positions, interchangeable by the field `positions`. The contract of an entry:

embed(module, m, at) -> _TD, _BTD or None     added to the embeddings
rotate(m, x_BTHK, at) -> x_BTHK               how queries and keys are turned
bias(n_heads, at, keys) -> _HTJ, _BHTJ, None  added to the scores
parameters(m) -> int
check(m)                                      raises ValueError, in words that say what to change
check_head(width, what)                       the same, for heads `width` wide
adds_bias, bounded, embedded                  whether `bias` gives anything; whether positions end
                                              at seq_len; whether `embed` gives anything

`at` and `keys` are whole positions, (T,) or (B, T); numpy's where they are known before the program
runs.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from model import config, rope_scaling
from model.config import Model
from model.context import on_device
from model.numerics import precise
from model.params import MATRIX, declare


def _space(at):
    return np if isinstance(at, np.ndarray) else jnp


@dataclasses.dataclass(frozen=True)
class NoPositions:
    """Nothing is added or turned: order is known by the causal mask alone. What others change."""

    adds_bias = bounded = embedded = False

    def embed(self, module, m: Model, at):
        return None

    def rotate(self, m: Model, x_BTHK, at):
        return x_BTHK

    def bias(self, n_heads: int, at, keys):
        return None

    def parameters(self, m: Model) -> int:
        return 0

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.positions")

    def check_head(self, width: int, what: str) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Sinusoidal(NoPositions):
    """sin | cos halves; wavelengths from 2 pi to 10,000 x 2 pi in a geometric progression, as the
    text of Vaswani et al. 2017 (arXiv 1706.03762, section 3.5) has it and as tensor2tensor, fairseq
    and XGLM compute it (exponent i / (D/2 - 1)).
    """

    offset: int = 0  # added to every position before its table is read: 2 in XGLM

    embedded = True

    def embed(self, module, m, at):
        half = m.d_model // 2
        angle = (at + self.offset)[..., None] * 10_000.0 ** (-np.arange(half) / max(1, half - 1))
        xp = _space(at)
        return xp.concatenate([xp.sin(angle), xp.cos(angle)], -1).astype(np.float32)

    def check(self, m):
        super().check(m)
        if m.d_model % 2:
            raise ValueError(f"sinusoidal positions need an even model.d_model, not {m.d_model}")


@dataclasses.dataclass(frozen=True)
class Learned(NoPositions):
    """A table of T x D that is trained (Radford et al. 2019, GPT-2)."""

    offset: int = 0  # added to every position before its table is read: 2 in OPT

    bounded = embedded = True

    def embed(self, module, m, at):
        shape, axes = (m.seq_len + self.offset, m.d_model), ("seq", "act_embed")
        table_TD = declare(module, "positions", shape, axes, 0.02, matrix=MATRIX)  # GPT-2
        if isinstance(at, np.ndarray):
            return table_TD[self.offset : self.offset + at.size]
        return table_TD[jnp.clip(at + self.offset, 0, table_TD.shape[0] - 1)]

    def parameters(self, m):
        return (m.seq_len + self.offset) * m.d_model


@dataclasses.dataclass(frozen=True)
class Rope(NoPositions):
    """Rotates pairs of the first `fraction` of K by t * theta^(-2i/K) (Su et al. 2021, arXiv
    2104.09864, eq 34). The order of the output is that of the input.
    """

    theta: float = 10_000.0
    fraction: float = 1.0  # share of a head's width that is rotated
    interleaved: bool = False  # pairs are (2i, 2i + 1), not (i, i + K/2)
    # for sequences longer than the frequencies are meant for (model/rope_scaling.py); None: as they
    # are
    scaling: rope_scaling.Linear | rope_scaling.LongRope | None = None

    def rotate(self, m, x_BTHK, at):
        half, magnitude = int(x_BTHK.shape[-1] * self.fraction) // 2, 1.0
        if self.scaling:
            each, magnitude = self.scaling.frequencies(self.theta, 2 * half, m.seq_len)
        else:
            each = rope_scaling.plain(self.theta, 2 * half)
        angle, xp = at[..., None, None] * each, _space(at)
        cos, sin = ((magnitude * f(angle)).astype(np.float32) for f in (xp.cos, xp.sin))
        turned, rest = precise(x_BTHK[..., : 2 * half]), x_BTHK[..., 2 * half :]
        if self.interleaved:
            a, b = turned[..., 0::2], turned[..., 1::2]
            out = jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(turned.shape)
        else:
            a, b = jnp.split(turned, 2, -1)
            out = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
        out = out.astype(x_BTHK.dtype)
        return jnp.concatenate([out, rest], -1) if rest.shape[-1] else out

    def check(self, m):
        super().check(m)
        if not 0 < self.fraction <= 1 or self.theta <= 0:
            raise ValueError(
                f"rope: fraction={self.fraction} must lie in (0, 1], theta={self.theta} above 0"
            )
        if self.scaling:
            self.scaling.check()
            if self.theta <= 1:
                raise ValueError(f"rope: theta={self.theta} must be above 1 with a scaling")

    def check_head(self, width, what):
        if int(width * self.fraction) % 2 or width * self.fraction < 2:
            raise ValueError(
                f"rope rotates pairs: {self.fraction:g} of {what} {width} wide must be even and at"
                " least 2"
            )
        if self.scaling:
            self.scaling.check_head(int(width * self.fraction))


def slopes(n_heads: int) -> np.ndarray:
    """ALiBi's slope of each head: 2^(-8h/H) for a power of two, else those of the power below and
    every other one of the next (Press et al. 2022, arXiv 2108.12409, section 3 and appendix; as in
    BLOOM).
    """
    below = 2 ** (n_heads.bit_length() - 1)
    whole = 2.0 ** (-8 * np.arange(1, below + 1) / below)
    between = 2.0 ** (-4 * np.arange(1, 2 * (n_heads - below), 2) / below)
    return np.concatenate([whole, between]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Alibi(NoPositions):
    """Scores fall with the distance, by a slope of each head (Press et al. 2022, arXiv
    2108.12409).
    """

    adds_bias = True

    def bias(self, n_heads, at, keys):
        distance = on_device(keys)[..., None, :] - on_device(at)[..., :, None]
        return slopes(n_heads)[:, None, None] * distance[..., None, :, :].astype(jnp.float32)
