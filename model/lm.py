"""The decoder-only language model: embed -> blocks -> norm -> head."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.block import Group, groups, stack
from model.config import Execution, Model
from model.norms import NORMS
from model.params import Einsum, declare
from model.positions import POSITIONS

# Below this vocabulary a one-hot matmul replaces the embedding gather: its backward pass is a matmul, not a scatter.
ONE_HOT_VOCAB = 1024


class LM(nn.Module):
    """``LM(c, ex).apply({"params": params}, tokens_BT) -> (logits_BTV float32, statistics)``.

    statistics: {} for a dense model; else arrays of one value per MoE layer (see model/mlps/moe.py).
    """

    c: Model
    ex: Execution = Execution()

    @nn.compact
    def __call__(self, tokens_BT):
        c, ex = self.c, self.ex
        table_VD = declare(self, "embed", (c.vocab_size, c.d_model), ("vocab", "embed"), 0.02 if c.tied else 1.0)
        # gathered whole: a gather from a table sharded both ways is rematerialised involuntarily by the partitioner
        whole_VD = nn.with_logical_constraint(table_VD, ("vocab", "act_embed")).astype(ex.dtype)
        if c.vocab_size <= ONE_HOT_VOCAB:
            x_BTD = jax.nn.one_hot(tokens_BT, c.vocab_size, dtype=ex.dtype) @ whole_VD
        else:
            x_BTD = whole_VD[tokens_BT]
        added_TD = POSITIONS[c.positions].embed(self, c)
        if added_TD is not None:
            x_BTD = x_BTD + jnp.asarray(added_TD, ex.dtype)[: tokens_BT.shape[1]]
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "seq", "act_embed"))

        if ex.scan:
            scanned = nn.scan(
                Group,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=groups(c),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x_BTD, stats = scanned(c, ex, name="groups")(x_BTD, None)
        else:
            kept = []
            for g in range(groups(c)):
                x_BTD, stats = Group(c, ex, name=f"group_{g}")(x_BTD)
                kept.append(stats)
            stats = stack([s for s in kept if s])
        stats = jax.tree.map(lambda a: a.reshape(-1), stats)

        x_BTD = NORMS[c.norm][0](name="norm_out")(x_BTD)
        if c.tied:
            logits_BTV = jnp.einsum("btd,vd->btv", x_BTD, table_VD.astype(ex.dtype))
        else:
            logits_BTV = Einsum(
                "btd,dv->btv", (c.d_model, c.vocab_size), ("embed", "vocab"), c.d_model, gain=0.0, dtype=ex.dtype, name="head"
            )(x_BTD)
        return logits_BTV.astype(jnp.float32), stats


def abstract(c: Model, ex: Execution = Execution()):
    """The parameters as a tree of abstract `model.params.Parameter`s: shapes, logical axes, initial spread. Computes nothing."""
    tokens = jax.ShapeDtypeStruct((ex.moe_groups, c.seq_len), jnp.int32)
    return jax.eval_shape(LM(c, ex).init, jax.random.key(0), tokens)["params"]
