"""Multi-head latent attention: keys and values are projections of one latent of rank `kv_rank` per
token, which is what a cache keeps (DeepSeek-V2, arXiv 2405.04434, section 2.1, eq 9-19). A head's
queries and keys have a part of d_head that carries no position and a part of d_rope that does; the
latter's key is one for all heads. Latents are RMS-normalised.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.softmax import (
    Rule,
    attend,
    check_heads,
    head_width,
    map_flops,
    map_work,
    output,
    own_positions,
)
from model.norms import RMSNorm
from model.params import Einsum
from model.positions import NoPositions
from model.state import State
from model.work import Work, matmuls, size, total


@dataclasses.dataclass(frozen=True)
class Latent:
    """Multi-head latent attention."""

    n_heads: int = 4  # H
    kv_rank: int = 0  # width of the latent that keys and values share; has to be given
    q_rank: int = 0  # width of the queries' latent; 0: none
    d_head: int = 0  # width of a head's part without positions; 0: d_model / n_heads
    d_rope: int = 0  # width of a head's part that is rotated
    d_value: int = 0  # width of a head's values; 0: d_head
    # a token attends to itself and the window - 1 tokens before it; 0: to all before it
    window: int = 0
    out_bias: bool = False  # a bias of the output
    cap: float = 0.0  # scores become cap x tanh(scores / cap); 0: off
    # scores are multiplied by it, before the cap; 0: 1 / sqrt(d_head + d_rope)
    scale: float = 0.0
    positions: NoPositions | None = None  # of this layer; None: the model's

    apart = True

    def rule(self, m: Model) -> Rule:
        return Rule(self.n_heads, self.window, self.cap, self.positions or m.positions)

    def value_width(self, m: Model) -> int:
        return self.d_value or head_width(self, m)

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads",), "model.latent")
        check_heads(self, m, "latent")
        if not self.kv_rank:
            raise ValueError(
                "mixer latent needs model.latent.kv_rank, the width of the latent that keys and"
                " values share"
            )
        positions = own_positions(self, m, "latent")
        positions.check(m)
        positions.check_head(self.d_rope, "model.latent.d_rope,")

    def parameters(self, m: Model) -> dict[str, int]:
        return {
            "attention": self.multiplied(m) + m.d_model * self.out_bias,
            "norms": self.kv_rank + self.q_rank,
        }

    def multiplied(self, m: Model) -> int:
        k, v, d = head_width(self, m), self.value_width(m), m.d_model
        width = self.n_heads * (k + self.d_rope)
        queries = self.q_rank * (d + width) if self.q_rank else d * width
        keys = d * (self.kv_rank + self.d_rope) + self.kv_rank * self.n_heads * (k + v)
        return queries + keys + self.n_heads * v * d

    def map_flops(self, m: Model, causal: bool) -> int | float:
        """Scores over d_head + d_rope, values over d_value, per head and attended pair."""
        width = head_width(self, m) + self.d_rope + self.value_width(m)
        return map_flops(self, m, causal, width)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        """Kept: the latents before and after their norms, keys and values before and after they are
        put together, queries, what is attended to, and the map.
        """
        k, v, tokens = head_width(self, m), self.value_width(m), batch * m.seq_len
        turned = k + self.d_rope
        width = 2 * (self.q_rank + self.kv_rank) + self.n_heads * (2 * turned + k + 3 * v)
        kept, last = tokens * width * size(ex), 2 * tokens * self.n_heads * v * m.d_model
        return total(
            (
                matmuls(2 * tokens * self.multiplied(m), last, kept=kept),
                map_work(self.rule(m), ex, m.seq_len, batch, turned, v),
            )
        )

    def state(self, m: Model) -> State:
        """The latent and the shared rotated key. Keys and values of all heads are made from them in
        every call.
        """
        return State(per_token=self.kv_rank + self.d_rope)

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.latent.n_heads", self.n_heads)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Latent(self, m, ex, name=name)


class _Latent(nn.Module):
    p: Latent
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, dtype = self.p, self.m, self.ex.dtype
        k_width, v_width = head_width(p, m), p.value_width(m)
        ctx = ctx or context.plain(x_BTD.shape[1])
        rule = p.rule(m)

        def rotate(x_BTHK):
            return rule.positions.rotate(m, x_BTHK, ctx.at)

        def norm(name):
            return RMSNorm().module(name)  # whatever the model's, as in DeepSeek-V3

        def down(name, width):
            shape, axes = (m.d_model, width), ("embed", None)
            return Einsum("btd,dp->btp", shape, axes, m.d_model, dtype=dtype, name=name)(x_BTD)

        def up(name, x_BTP, width):
            shape = x_BTP.shape[-1], p.n_heads, width
            axes = ("embed" if x_BTP is x_BTD else None, "heads", "head_dim")
            return Einsum("btp,phk->bthk", shape, axes, x_BTP.shape[-1], dtype=dtype, name=name)(
                x_BTP
            )

        source = norm("norm_q")(down("q_down", p.q_rank)) if p.q_rank else x_BTD
        q_BTHK = up("q", source, k_width + p.d_rope)
        if p.d_rope:
            q_BTHK = jnp.concatenate([q_BTHK[..., :k_width], rotate(q_BTHK[..., k_width:])], -1)
        latent_BJP = context.remember(
            self, "latent", norm("norm_kv")(down("kv_down", p.kv_rank)), ctx
        )
        kv_BJHK = up("kv", latent_BJP, k_width + v_width)
        k_BJHK, v_BJHK = kv_BJHK[..., :k_width], kv_BJHK[..., k_width:]
        if p.d_rope:
            shared_BJ1K = context.remember(
                self, "k", rotate(down("k_rope", p.d_rope)[:, :, None]), ctx
            )
            spread = jnp.broadcast_to(shared_BJ1K, (*k_BJHK.shape[:3], p.d_rope))
            k_BJHK = jnp.concatenate([k_BJHK, spread], -1)
        scale = p.scale or (k_width + p.d_rope) ** -0.5
        return output(p, m, dtype, v_width)(
            attend(rule, self.ex, ctx, q_BTHK, k_BJHK, v_BJHK, scale, None)
        )
