"""One layer, and one repetition of the layer pattern."""

import jax
from flax import linen as nn

from model import xla_cpu
from model.config import Execution, Layer, Model


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); other places of the norms and a parallel residual
    by the fields of the layer (model/config.py).
    """

    m: Model
    ex: Execution
    layer: Layer

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        m, ex, own = self.m, self.ex, self.layer
        mixer, mlp = own.mixer.module(m, ex, "mixer"), own.mlp.module(m, ex, "mlp")
        norms = {name: m.norm.module(name) for name in own.norms}

        def put(name, x):
            return norms[name](x) if name in norms else x

        post = own.norm == "post"  # the norm of a part stands after the sum

        def before(name, x):
            return x if post else xla_cpu.value_made_once(ex, put(name, x))

        def added(name, x):
            x = put(name, x)
            return x if own.residual_scale == 1 else x * own.residual_scale

        def summed(name, x):
            return put(name, x) if post else x

        x_BTD = xla_cpu.gradient_made_once(ex, x_BTD)
        normed_BTD = before("norm_mixer", x_BTD)
        y_BTD = added("norm_after_mixer", mixer(normed_BTD, ctx))
        if own.residual == "sequential":
            x_BTD = xla_cpu.gradient_made_once(ex, summed("norm_mixer", x_BTD + y_BTD))
            z_BTD, stats = mlp(before("norm_mlp", x_BTD), ctx)
            x_BTD = summed("norm_mlp", x_BTD + added("norm_after_mlp", z_BTD))
        else:
            if own.residual == "parallel":
                normed_BTD = before("norm_mlp", x_BTD)
            z_BTD, stats = mlp(normed_BTD, ctx)
            x_BTD = x_BTD + y_BTD + added("norm_after_mlp", z_BTD)
        return nn.with_logical_constraint(x_BTD, ("batch", "seq", "act_embed")), stats


def block(m: Model, ex: Execution, layer: Layer, name: str) -> Block:
    """The module of a layer."""
    made = nn.remat(Block, prevent_cse=not ex.scan) if ex.remat else Block
    return made(m, ex, layer, name=name)


class Group(nn.Module):
    """The layer pattern once. Returns x and the statistics of its MoE layers, stacked."""

    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        kept = []
        for i, layer in enumerate(self.m.pattern):
            x_BTD, stats = block(self.m, self.ex, layer, f"layer_{i}")(x_BTD, ctx)
            if stats:
                kept.append(stats)
        return x_BTD, stack(kept)


def stack(trees):
    """A list of equal trees of arrays as one tree with a leading axis; {} for an empty list."""
    return jax.tree.map(lambda *a: jax.numpy.stack(a), *trees) if trees else {}


def layer_at(m: Model, path) -> Layer:
    """The layer that a path into the parameters or buffers leads through."""
    names = [str(p.key) for p in path if hasattr(p, "key")]
    outer = next(name for name in names if name.startswith(("first_", "group")))
    if outer.startswith("first_"):
        return m.first[int(outer.removeprefix("first_"))]
    return m.pattern[int(names[names.index(outer) + 1].removeprefix("layer_"))]
