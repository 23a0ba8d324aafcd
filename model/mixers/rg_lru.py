"""The recurrent block of Griffin (De et al. 2024, arXiv 2402.19427, section 2.2, eq 1 to 4): one
branch is a short convolution and the RG-LRU, h_t = a_t h_(t-1) + sqrt(1 - a_t^2) (i_t x_t), with
a_t = a^(8 r_t) and gates r, i = sigmoid of block-diagonal matrices; the other is gelu(x W), which
it is multiplied by. At the first token the factor of i x is 1, as in the authors' code
(google-deepmind/recurrentgemma), for nothing is forgotten there.

Starts: a^8 uniform in [0.9, 0.999]. Channels are d_model as in RecurrentGemma-2B, where the paper
has about 4/3 of it: n_channels.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import diagonal
from model.mixers.recurrent import (
    Recurrent,
    ShortConv,
    conv_flops,
    conv_state,
    divided,
    from_channels,
    to_channels,
)
from model.numerics import precise
from model.params import Einsum, declare
from model.starts import Powers
from model.state import State
from model.work import Work, matmuls, size, total

SHARPNESS = 8  # the paper's c


@dataclasses.dataclass(frozen=True)
class RGLRU(Recurrent):
    """A real-gated linear recurrent unit in its block."""

    n_channels: int = 0  # U; 0: d_model
    n_heads: int = 4  # blocks of the gates' matrices
    conv: int = 4  # tokens that the short convolution sees

    apart = True

    def channels(self, m: Model) -> int:
        return self.n_channels or m.d_model

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads", "conv"), "model.rg_lru")
        divided(self.channels(m), self.n_heads, "its channels", "model.rg_lru.n_heads")

    def parameters(self, m: Model) -> dict[str, int]:
        """Biases of both branches, the convolution, both gates and the output; rates."""
        u = self.channels(m)
        return {"mixer": self.multiplied(m) + u * (2 + self.conv + 1 + 2 + 1) + m.d_model}

    def multiplied(self, m: Model) -> int:
        """Two branches and out of D x U, gates of U x U / blocks."""
        u = self.channels(m)
        return 3 * m.d_model * u + 2 * u * u // self.n_heads

    def recurrence(self, m: Model) -> int:
        """The convolution, and the state's."""
        u = self.channels(m)
        return conv_flops(self.conv, u) + diagonal.flops(u)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, u = batch * m.seq_len, self.channels(m)
        one = 2 * tokens * self.multiplied(m) + tokens * conv_flops(self.conv, u)
        outer = matmuls(one, 2 * tokens * u * m.d_model, 14 * tokens * u * size(ex))
        return total((outer, diagonal.work(batch, m.seq_len, u)))

    def state(self, m: Model) -> State:
        u = self.channels(m)
        return State(per_sequence=u + conv_state(self.conv, u))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [
            ("channels", "the channels of model.rg_lru", self.channels(m)),
            ("heads", "model.rg_lru.n_heads", self.n_heads),
        ]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _RGLRU(self, m, ex, name=name)


class _RGLRU(nn.Module):
    p: RGLRU
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, u = self.p, self.m, self.ex, self.p.channels(self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])
        x_BTU, y_BTU = (to_channels(m, ex, n, u, bias=True)(x_BTD) for n in ("x", "y"))
        x_BTU = ShortConv(p.conv, ("channels",), name="conv")(x_BTU, ctx)
        blocks_BTHK = x_BTU.reshape(*x_BTU.shape[:2], p.n_heads, -1)

        def gate(name):
            k = u // p.n_heads
            axes = ("heads", "head_dim", None)
            a = Einsum("bthk,hkj->bthj", (p.n_heads, k, k), axes, k, dtype=ex.dtype, bias=True,
                       name=name)(blocks_BTHK)  # fmt: skip
            return jax.nn.sigmoid(precise(a)).reshape(x_BTU.shape)

        rates_U = declare(self, "rates", (u,), ("channels",), start=Powers(0.9, 0.999, SHARPNESS))
        log_BTU = -SHARPNESS * jax.nn.softplus(rates_U) * gate("forget")
        kept_BTU = jnp.sqrt(jnp.maximum(-jnp.expm1(2 * log_BTU), 1e-12))
        first_BT = jnp.broadcast_to(context.on_device(ctx.at) == 0, x_BTU.shape[:2])
        u_BTU = gate("input") * precise(x_BTU) * jnp.where(first_BT[..., None], 1, kept_BTU)
        h_BTU = diagonal.mix(self, ctx, (jnp.exp(log_BTU),), (u_BTU,))[0]
        return from_channels(m, ex, u, bias=True)(jax.nn.gelu(precise(y_BTU)).astype(ex.dtype)
                                                  * h_BTU.astype(ex.dtype))  # fmt: skip
