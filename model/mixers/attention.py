"""Causal multi-head attention, softmax(q k / sqrt(d_head)) v (Vaswani et al. 2017, arXiv 1706.03762, eq 1)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import Execution, Model
from model.params import Einsum
from model.positions import POSITIONS


class Attention(nn.Module):
    c: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD):
        c, dtype = self.c, self.ex.dtype
        proj = lambda name: Einsum(
            "btd,dhk->bthk", (c.d_model, c.n_heads, c.d_head), ("embed", "heads", "head_dim"), c.d_model, dtype=dtype, name=name
        )
        rotate = POSITIONS[c.positions].rotate
        q_BTHK, k_BTHK, v_BTHK = rotate(proj("q")(x_BTD), c), rotate(proj("k")(x_BTD), c), proj("v")(x_BTD)
        scores_BHTT = jnp.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK).astype(jnp.float32) * c.d_head**-0.5
        length = x_BTD.shape[1]
        mask_TT = jnp.arange(length)[:, None] >= jnp.arange(length)
        weights_BHTT = jax.nn.softmax(jnp.where(mask_TT, scores_BHTT, -1e30), -1).astype(dtype)
        out_BTHK = jnp.einsum("bhts,bshk->bthk", weights_BHTT, v_BTHK)
        # residual branches start 1/sqrt(2 L) smaller, as GPT-2 (Radford et al. 2019, section 2.3)
        return Einsum(
            "bthk,hkd->btd",
            (c.n_heads, c.d_head, c.d_model),
            ("heads", "head_dim", "embed"),
            c.d_model,
            gain=(2 * c.n_layers) ** -0.5,
            dtype=dtype,
            name="out",
        )(out_BTHK)


def parameters(c: Model) -> dict[str, int]:
    return {"attention": 4 * c.d_model**2}


def forward_flops(c: Model, causal: bool) -> int:
    """Projections 8 D^2; scores and values 2 x 2 D per attended pair: T of them on the full map, (T+1)/2 on average causally."""
    return 8 * c.d_model**2 + (2 * c.d_model * (c.seq_len + 1) if causal else 4 * c.d_model * c.seq_len)
