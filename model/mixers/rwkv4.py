"""The time mix of RWKV-4 (Peng et al. 2023, arXiv 2305.13048, eq 11 to 18): each channel keeps a
mean of values, weighted by exp(k) and a decay exp(-w) a token, with a bonus u for the present one;
sigmoid(r) times that mean goes through a matrix. What goes into r, k and v is a share of a token
and the rest of the one before. Sums are kept over their largest exponent (appendix D), which no
exponential exceeds. The channel mix is an MLP: model/mlps/channel_mix.py.

Starts: w, u and the shares are those of a layer at half the depth (appendix E, BlinkDL/RWKV-LM),
where the paper spreads them over layers too; matrices as everywhere here, where it has zeros.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.recurrent import Recurrent, counted, from_channels, to_channels, token_before
from model.numerics import precise
from model.params import declare
from model.starts import Ramps, Zigzag
from model.state import State
from model.work import Work, matmuls, size

NOTHING = -1e38  # an exponent
UNROLL = 8


@dataclasses.dataclass(frozen=True)
class RWKV4(Recurrent):
    """A running mean of values with weights of their own."""

    apart = True

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.rwkv4")

    def parameters(self, m: Model) -> dict[str, int]:
        """Matrices, shares of three, rates, the bonus."""
        return {"mixer": self.multiplied(m) + 5 * m.d_model}

    def multiplied(self, m: Model) -> int:
        return 4 * m.d_model**2

    def recurrence(self, m: Model) -> int:
        """Update and read of two sums a channel."""
        return 8 * m.d_model

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, d = batch * m.seq_len, m.d_model
        one = 2 * tokens * self.multiplied(m) + tokens * self.recurrence(m)
        return matmuls(one, 2 * tokens * d * d, 24 * tokens * d * size(ex))

    def state(self, m: Model) -> State:
        """Two sums, their largest exponent, and the token before."""
        return State(per_sequence=4 * m.d_model)

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "model.d_model", m.d_model)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _RWKV4(self, m, ex, name=name)


class _RWKV4(nn.Module):
    p: RWKV4
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        m, ex, d = self.m, self.ex, self.m.d_model
        ctx = ctx or context.plain(x_BTD.shape[1])
        shares = Ramps(((0.0, 0.5, 0.5), (0.0, 1.0, 0.5), (0.15, 1.15, 0.5)))
        shift_pD = declare(self, "shift", (3, d), (None, "act_embed"), start=shares)
        rates_U = declare(self, "rates", (d,), ("channels",), start=Ramps(((-5, 3, 1.35),)))
        bonus_U = declare(self, "bonus", (d,), ("channels",), start=Zigzag())
        before_BTD = token_before(self, x_BTD, ctx)

        def made_of(name, share_D):
            x = precise(before_BTD) + share_D * (precise(x_BTD) - precise(before_BTD))
            return precise(to_channels(m, ex, name, d)(x.astype(ex.dtype)))

        r_BTU, k_BTU, v_BTU = (made_of(n, s) for n, s in zip("rkv", shift_pD))

        def scanned(kept_BsU):
            state = tuple(kept_BsU[:, i] for i in range(3))
            real_BT = None if ctx.slot is None else ctx.at >= 0
            going_BT = context.going_on(ctx)
            y_BTU, last = means(jnp.exp(rates_U), bonus_U, k_BTU, v_BTU, real_BT, going_BT, state)
            return y_BTU, jnp.stack(last, 1)

        y_BTU = context.carry(self, "sums", (x_BTD.shape[0], 3, d), v_BTU.dtype, ctx, scanned)
        return from_channels(m, ex, d)((jax.nn.sigmoid(r_BTU) * y_BTU).astype(ex.dtype))


def means(decay_U, bonus_U, k_BTU, v_BTU, real_BT, going_BT, state):
    """(y_BTU, (weighted sum, sum of weights, their largest exponent) after the last token)."""

    def joined(most, held, k, v, weighted, weights):
        """Both sums over e^most, with one token more."""
        old, new = jnp.exp(held - most), jnp.exp(k - most)
        with counted():
            weighted, weights = old * weighted, old * weights
        return weighted + new * v, weights + new

    def one(state, now):
        k, v, real_B, going_B = now
        weighted, weights, held = context.kept(state, going_B)
        held = jnp.where(weights > 0, held, NOTHING)  # a state that is empty
        y, total = joined(jnp.maximum(held, bonus_U + k), held, bonus_U + k, v, weighted, weights)
        held = held - decay_U
        most = jnp.maximum(held, k)
        after = (*joined(most, held, k, v, weighted, weights), most)
        if real_B is not None:
            after = tuple(jnp.where(real_B[:, None], a, b) for a, b in zip(after, state))
        return after, y / total

    given = jax.tree.map(lambda a: a.swapaxes(0, 1), (k_BTU, v_BTU, real_BT, going_BT))
    last, y_TBU = jax.lax.scan(one, state, given, unroll=UNROLL)
    return y_TBU.swapaxes(0, 1), last
