"""Multi-head latent attention: keys and values are projections of one latent of rank `kv_rank` per
token, which is what a cache keeps (DeepSeek-V2, arXiv 2405.04434, section 2.1, eq 9-19). A head's
queries and keys have a part of d_head that carries no position and a part of d_rope that does; the
latter's key is one for all heads. Latents are RMS-normalised.
"""

import jax.numpy as jnp
from flax import linen as nn

from model import context, positions
from model.config import Execution, Model
from model.mixers.attention import attend, map_work, output, pairs, per_token
from model.norms import RMSNorm
from model.params import Einsum
from model.work import Work, matmuls, size, total


class Latent(nn.Module):
    c: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        c, dtype = self.c, self.ex.dtype
        ctx = ctx or context.plain(x_BTD.shape[1])
        rotate = positions.POSITIONS[c.positions].rotate
        norm = lambda name: RMSNorm(name=name)  # eps 1e-6 whatever the model's, as in DeepSeek-V3

        def down(name, width):
            return Einsum(
                "btd,dp->btp",
                (c.d_model, width),
                ("embed", None),
                c.d_model,
                dtype=dtype,
                name=name,
            )(x_BTD)

        def up(name, x_BTP, width):
            shape, axes = (
                (x_BTP.shape[-1], c.n_heads, width),
                ("embed" if x_BTP is x_BTD else None, "heads", "head_dim"),
            )
            return Einsum("btp,phk->bthk", shape, axes, x_BTP.shape[-1], dtype=dtype, name=name)(
                x_BTP
            )

        source = norm("norm_q")(down("q_down", c.q_rank)) if c.q_rank else x_BTD
        q_BTHK = up("q", source, c.k_head + c.d_rope)
        q_BTHK = (
            jnp.concatenate(
                [q_BTHK[..., : c.k_head], rotate(q_BTHK[..., c.k_head :], c, ctx.at)], -1
            )
            if c.d_rope
            else q_BTHK
        )
        latent_BJP = context.remember(
            self, "latent", norm("norm_kv")(down("kv_down", c.kv_rank)), ctx
        )
        kv_BJHK = up("kv", latent_BJP, c.k_head + c.v_head)
        k_BJHK, v_BJHK = kv_BJHK[..., : c.k_head], kv_BJHK[..., c.k_head :]
        if c.d_rope:
            shared_BJ1K = context.remember(
                self, "k", rotate(down("k_rope", c.d_rope)[:, :, None], c, ctx.at), ctx
            )
            spread = jnp.broadcast_to(shared_BJ1K, (*k_BJHK.shape[:3], c.d_rope))
            k_BJHK = jnp.concatenate([k_BJHK, spread], -1)
        scale = (c.k_head + c.d_rope) ** -0.5
        return output(c, dtype, c.v_head)(attend(c, self.ex, ctx, q_BTHK, k_BJHK, v_BJHK, scale))


def parameters(c: Model) -> dict[str, int]:
    return {"attention": multiplied(c) + c.d_model * c.out_bias, "norms": c.kv_rank + c.q_rank}


def multiplied(c: Model) -> int:
    width = c.n_heads * (c.k_head + c.d_rope)
    queries = c.q_rank * (c.d_model + width) if c.q_rank else c.d_model * width
    keys = c.d_model * (c.kv_rank + c.d_rope) + c.kv_rank * c.n_heads * (c.k_head + c.v_head)
    return queries + keys + c.n_heads * c.v_head * c.d_model


def map_flops(c: Model, causal: bool) -> int | float:
    """Scores over d_head + d_rope, values over d_value, per head and attended pair."""
    return per_token(2 * c.n_heads * (c.k_head + c.d_rope + c.v_head) * pairs(c, causal), c)


def work(c: Model, ex: Execution, batch: int) -> Work:
    """Kept: the latents before and after their norms, keys and values before and after they are put
    together, queries, what is attended to, and the map.
    """
    tokens, turned = batch * c.seq_len, c.k_head + c.d_rope
    width = 2 * (c.q_rank + c.kv_rank) + c.n_heads * (2 * turned + c.k_head + 3 * c.v_head)
    kept = tokens * width * size(ex)
    return total(
        (matmuls(2 * tokens * multiplied(c), kept=kept), map_work(c, ex, batch, turned, c.v_head))
    )


def cache(c: Model) -> int:
    """The latent and the shared rotated key. Keys and values of all heads are made from them in
    every call.
    """
    return c.kv_rank + c.d_rope


def check(c: Model) -> None:
    if not c.kv_rank:
        raise ValueError(
            "mixer latent needs model.kv_rank, the width of the latent that keys and values share"
        )
    if c.n_kv_heads not in (0, c.n_heads) or c.qk_norm != "none" or c.qkv_bias:
        raise ValueError(
            "mixer latent has its own norms, no grouped heads and no biases of q, k, v: leave"
            " model.n_kv_heads, qk_norm and qkv_bias"
        )
    if c.positions == "rope" and (not c.d_rope or int(c.d_rope * c.rope_fraction) % 2):
        raise ValueError(
            f"mixer latent with rope needs an even model.d_rope (now {c.d_rope}), the width per"
            " head that is rotated"
        )
