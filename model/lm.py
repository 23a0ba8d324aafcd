"""The decoder-only language model: embed -> blocks -> norm -> head."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import context, loss, parts
from model.block import Group, block, stack
from model.config import Execution, Model
from model.mlps import routing
from model.numerics import einsum, precise
from model.params import MATRIX, Kernel, declare, is_parameter

# Below this vocabulary a one-hot matmul replaces the embedding gather: its backward pass is a
# matmul, not a scatter.
ONE_HOT_VOCAB = 1024


@jax.custom_vjp
def _rows(table_VD, tokens_BT):
    """table_VD[tokens_BT], whose gradient is summed in float32 at least: a frequent token has
    thousands of terms, and a sum in bfloat16 stands still once it is 256 times as large as a
    term.
    """
    return table_VD[tokens_BT]


def _rows_bwd(held, g_BTD):
    table_VD, tokens_BT = held
    sums_VD = precise(jnp.zeros_like(table_VD)).at[tokens_BT].add(precise(g_BTD))
    return sums_VD.astype(table_VD.dtype), None


_rows.defvjp(lambda table_VD, tokens_BT: (table_VD[tokens_BT], (table_VD, tokens_BT)), _rows_bwd)


class LM(nn.Module):
    """``LM(m, ex).apply(variables, tokens_BT) -> (logits_BTV float32, statistics)``.

    separator: where given, documents are kept apart: no token sees one before its document, and
    positions begin anew with it.

    read: (x_BTD, w_VD) -> anything, called with the last states and the head's matrix, whose result
    stands in the place of the logits.

    variables: {"params": ..., "buffers": ...}; buffers are {} but for models with a selection bias.
    statistics: {} for a dense model; else arrays of one value per MoE layer, and the scalar
    `auxiliary` (model/mlps/routing.py). With a `ctx` (model/context.py) the same call prefills and
    decodes: keys and values are kept in the collection "cache".
    """

    m: Model
    ex: Execution = Execution()
    separator: context.Separator | None = None

    @property
    def plain(self) -> Model:
        """The model with what its parametrisation multiplies activations by."""
        return self.m.parametrisation.plain(self.m)

    @nn.compact
    def __call__(self, tokens_BT, ctx=None, read=None):
        m, ex = self.plain, self.ex
        if ctx is None and self.separator is not None:
            parts.check_apart(m)
            ctx = context.apart(tokens_BT, self.separator)
        table_VD = self._table()
        x_BTD = self._embed(table_VD, tokens_BT, ctx)
        stats = []
        for i, layer in enumerate(m.first):
            x_BTD, s = block(m, ex, layer, f"first_{i}")(x_BTD, ctx)
            stats += [jax.tree.map(lambda a: a[None], s)] if s else []
        if ex.scan:
            scanned = nn.scan(
                Group,
                variable_axes={
                    n: 0 for n in ("params", "buffers", "load", "cache", "intermediates")
                },
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=m.groups,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x_BTD, s = scanned(m, ex, name="groups")(x_BTD, ctx)
            stats += [jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), s)] if s else []
        else:
            # anew in every call: what is traced depends on the rules of the logical axes, which
            # jit's cache does not look at
            kept, traced_once = [], nn.jit(Group)
            for g in range(m.groups):
                x_BTD, s = traced_once(m, ex, name=f"group_{g}")(x_BTD, ctx)
                kept += [s] if s else []
            stats += (
                [jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), stack(kept))] if kept else []
            )
        stats = jax.tree.map(lambda *a: jnp.concatenate(a), *stats) if stats else {}
        read = read or functools.partial(loss.logits, cap=m.logit_cap)
        return read(*self._head(table_VD, x_BTD)), routing.losses(m, stats) if stats else {}

    def _table(self):
        m = self.m
        shape, axes = (m.vocab_size, m.d_model), ("vocab", "embed")
        return declare(self, "embed", shape, axes, 0.02 if m.tied else 1.0, matrix=MATRIX)

    def _embed(self, table_VD, tokens_BT, ctx):
        m, dtype = self.plain, self.ex.dtype
        # gathered whole: a gather from a table sharded both ways is rematerialised involuntarily by
        # the partitioner
        whole_VD = nn.with_logical_constraint(table_VD, ("vocab", "act_embed")).astype(dtype)
        if m.vocab_size <= ONE_HOT_VOCAB:
            x_BTD = einsum(
                "btv,vd->btd", jax.nn.one_hot(tokens_BT, m.vocab_size, dtype=dtype), whole_VD
            )
        else:
            x_BTD = _rows(whole_VD, tokens_BT)
        if m.embed_scale:
            x_BTD = x_BTD * m.d_model**0.5
        if m.embed_multiplier != 1:
            x_BTD = x_BTD * m.embed_multiplier
        ctx = ctx or context.plain(tokens_BT.shape[1])
        added_TD = m.positions.embed(self, m, ctx.at)
        if added_TD is not None:
            x_BTD = x_BTD + jnp.asarray(added_TD, dtype)
        if m.embed_norm:
            x_BTD = m.norm.module("norm_embed")(x_BTD)
        return nn.with_logical_constraint(x_BTD, ("batch", "seq", "act_embed"))

    def _head(self, table_VD, x_BTD):
        """The last states, normed, and the head's matrix (V, D)."""
        m = self.plain
        if m.head_norm:
            x_BTD = m.norm.module("norm_out")(x_BTD)
        if m.logit_scale != 1:  # fewer numbers than logits
            x_BTD = x_BTD * m.logit_scale
        w_VD = (
            table_VD
            if m.tied
            else Kernel((m.d_model, m.vocab_size), ("embed", "vocab"), 0.0, name="head")().T
        )
        if self.ex.loss_chunk:  # gathered once, not once a chunk
            w_VD = nn.with_logical_constraint(w_VD, ("vocab", "act_embed"))
        return x_BTD, w_VD


class Embedding(LM):
    """What stands before the layers: ``Embedding(m, ex).apply(variables, tokens_BT) -> x_BTD``. Of
    an LM's variables it needs those alone that it reads.
    """

    @nn.compact
    def __call__(self, tokens_BT):
        return self._embed(self._table(), tokens_BT, None)


class Head(LM):
    """What stands after the layers: ``Head(m, ex).apply(variables, x_BTD, read)`` calls `read` as
    `LM` does.
    """

    @nn.compact
    def __call__(self, x_BTD, read):
        return read(*self._head(self._table() if self.m.tied else None, x_BTD))


@functools.cache
def _variables(m: Model, ex: Execution):
    tokens = jax.ShapeDtypeStruct((ex.moe_groups * m.unit, m.seq_len), jnp.int32)
    return jax.eval_shape(LM(m, ex).init, jax.random.key(0), tokens)


def abstract(m: Model, ex: Execution = Execution()):
    """The parameters as a tree of abstract `model.params.Parameter`s: shapes, logical axes, initial
    spread. Computes nothing.
    """

    def one(path, box):
        names = tuple(str(k.key) for k in path if hasattr(k, "key"))
        factor = m.parametrisation.factors(m, names, bool(box.matrix)).std
        return box if factor == 1 else box.replace(std=box.std * factor)

    return jax.tree_util.tree_map_with_path(one, _variables(m, ex)["params"], is_leaf=is_parameter)


def buffers(m: Model, ex: Execution = Execution()):
    """The buffers, which are no parameters, as a tree of abstract arrays; they start at zero. {}
    for most models.
    """
    return _variables(m, ex).get("buffers", {})
