"""The time mix of RWKV-7 (Peng et al. 2025, arXiv 2503.14456, section 4): S_t = S_(t-1) (diag(w_t)
- k^_t^T (a_t k^_t)) + v_t^T k~_t, y_t = S_t r_t, a delta rule with a decay of every channel, that
takes off along k^ and at rates a of their own; a norm of every head, a bonus for the present token,
and a gate. Each of six inputs is a token and a share of the one before.

w = exp(-exp(-1/2) sigmoid(...)): no decay is below 0.545, so that in a chunk of 16 tokens no
exponential of a sum of them leaves [e^-10, e^10], and its maps are plain products.

Starts: w, shares, k^ and k~ are those of a layer at half the depth (BlinkDL/RWKV-LM), where the
authors spread them over layers too; matrices as everywhere here. Values are not mixed with those of
the first layer: a layer here sees no other.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import vectors
from model.mixers.recurrent import Recurrent, divided, from_heads, to_channels, token_before
from model.numerics import precise
from model.params import Einsum, declare
from model.starts import Ramps
from model.state import State
from model.work import Work, matmuls, size, total

# low, high, power of the share of the token before, for r, w, k, v, a, g
SHARES = (
    *((1, 0, 0.1), (1, 0, 0.45), (0.8, -0.2, 0.45)),
    *((0.7, -0.3, 0.2), (1, 0, 0.45), (1, 0, 0.1)),
)


@dataclasses.dataclass(frozen=True)
class RWKV7(Recurrent):
    """A generalised delta rule."""

    n_heads: int = 4  # H
    rank: int = 0  # of the thin matrices, of the gate's twice that; 0: d_model / 12, at least 8

    apart = True

    def width(self, m: Model) -> int:
        return m.d_model // self.n_heads

    def thin(self, m: Model) -> int:
        return self.rank or max(8, m.d_model // 12)

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads",), "model.rwkv7")
        divided(m.d_model, self.n_heads, "model.d_model", "model.rwkv7.n_heads")

    def parameters(self, m: Model) -> dict[str, int]:
        """Six shares, biases of w and a, factors of k^ and k~, the bonus."""
        return {"mixer": self.multiplied(m) + 11 * m.d_model, "norms": 2 * m.d_model}

    def multiplied(self, m: Model) -> int:
        """r, k, v, out; thin ones of w and a, and of the gate."""
        return m.d_model * (4 * m.d_model + 8 * self.thin(m))

    def recurrence(self, m: Model) -> int:
        return vectors.flops(self.n_heads, self.width(m))

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, d = batch * m.seq_len, m.d_model
        outer = matmuls(
            2 * tokens * self.multiplied(m), 2 * tokens * d * d, 40 * tokens * d * size(ex)
        )
        return total((outer, vectors.work(ex, batch, m.seq_len, self.n_heads, self.width(m))))

    def state(self, m: Model) -> State:
        """The heads' states, and the token before."""
        return State(per_sequence=m.d_model * self.width(m) + m.d_model)

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.rwkv7.n_heads", self.n_heads), ("channels", "d_model", m.d_model)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _RWKV7(self, m, ex, name=name)


class _RWKV7(nn.Module):
    p: RWKV7
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, d, heads = self.p, self.m, self.ex, self.m.d_model, self.p.n_heads
        ctx = ctx or context.plain(x_BTD.shape[1])
        shift_pD = declare(self, "shift", (6, d), (None, "act_embed"), start=Ramps(SHARES))
        before_BTD = precise(token_before(self, x_BTD, ctx))

        def vector(name, **start):
            return declare(self, name, (d,), ("channels",), **start)

        def mixed(i):
            x = precise(x_BTD)
            return (x + shift_pD[i] * (before_BTD - x)).astype(ex.dtype)

        def project(name, i):
            return precise(to_channels(m, ex, name, d)(mixed(i)))

        def thin(name, i, rank, act):
            down = to_channels(m, ex, f"{name}_down", rank, split=False)(mixed(i))
            low = act(precise(down)).astype(ex.dtype)
            up = Einsum("btp,pu->btu", (rank, d), (None, "channels"), rank, dtype=ex.dtype,
                        name=name)  # fmt: skip
            return precise(up(low))

        r, k, v = (project(name, i) for name, i in (("r", 0), ("k", 2), ("v", 3)))
        low = vector("rates", start=Ramps(((-6.5, -1.5, 1.56),)))
        log = -jnp.exp(-0.5) * jax.nn.sigmoid(low + thin("w", 1, p.thin(m), jnp.tanh))
        a = jax.nn.sigmoid(vector("a_bias") + thin("a", 4, p.thin(m), lambda x: x))
        gate = thin("gate", 5, 2 * p.thin(m), jax.nn.sigmoid)
        along = k * vector("along_bias", mean=0.85)
        k = k * (1 + (a - 1) * vector("replace_bias", mean=1.0))

        def by_head(x):
            return x.reshape(*x.shape[:2], heads, -1)

        r, k, v, along, a, log = map(by_head, (r, k, v, along, a, log))
        along = along * jax.lax.rsqrt((along * along).sum(-1, keepdims=True) + 1e-12)
        y = vectors.mix(self, ctx, ex, r, k, v, along, a * along, log)
        y = _Norm(name="norm_head")(precise(y))
        bonus = declare(self, "bonus", (heads, p.width(m)), ("heads", None))
        y = y + (r * k * bonus).sum(-1, keepdims=True) * v
        return from_heads(m, ex, heads, p.width(m))((y * by_head(gate)).astype(ex.dtype))


class _Norm(nn.Module):
    """A layer norm of every head, with a scale and a bias of every channel."""

    @nn.compact
    def __call__(self, y_BTHK):
        shape, axes = y_BTHK.shape[2:], ("heads", None)
        y = y_BTHK - y_BTHK.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 64e-5)
        return y * declare(self, "scale", shape, axes, mean=1.0) + declare(
            self, "bias", shape, axes
        )
