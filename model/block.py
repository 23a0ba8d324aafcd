"""One layer, and one repetition of the layer pattern."""

import jax
from flax import linen as nn

from model import norms
from model.config import Execution, Model
from model.mixers import MIXERS
from model.mlps import MLPS
from model.params import settled


@jax.custom_vjp
def _settled(x_BTD):
    """`x_BTD`, whose gradient is settled: in unrolled layers each else adds up the gradients of all
    layers above it anew, two or three times.
    """
    return x_BTD


_settled.defvjp(lambda x_BTD: (x_BTD, None), lambda _, g_BTD: (settled(g_BTD),))


@jax.custom_vjp
def _whole(x_BTD):
    """`x_BTD` settled, its gradient as it comes. The weights' gradients want a norm's output
    transposed, and XLA else makes the norm again for that, down the columns.
    """
    return settled(x_BTD)


_whole.defvjp(lambda x_BTD: (settled(x_BTD), None), lambda _, g_BTD: (g_BTD,))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); with post_norm, norm(x + mixer(x)), then norm(x +
    mlp(x)).
    """

    c: Model
    ex: Execution
    kind: tuple

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        c, (mixer, mlp) = self.c, self.kind
        settle, whole = (_settled, _whole) if self.ex.settle else (lambda x: x,) * 2
        before = lambda name, x: x if c.post_norm else whole(norms.make(c, name)(x))
        after = lambda name, x: norms.make(c, name)(x) if c.post_norm else x
        x_BTD = settle(x_BTD)
        y_BTD = MIXERS[mixer].module(c, self.ex, name="mixer")(before("norm_mixer", x_BTD), ctx)
        x_BTD = settle(after("norm_mixer", x_BTD + y_BTD))
        y_BTD, stats = MLPS[mlp].module(c, self.ex, name="mlp")(before("norm_mlp", x_BTD), ctx)
        x_BTD = after("norm_mlp", x_BTD + y_BTD)
        return nn.with_logical_constraint(x_BTD, ("batch", "seq", "act_embed")), stats


def layer(c: Model, ex: Execution, entry: str, name: str):
    """The layer that an entry of the pattern names."""
    block = nn.remat(Block, prevent_cse=not ex.scan) if ex.remat else Block
    return block(c, ex, tuple(entry.split("/")), name=name)


class Group(nn.Module):
    """The layer pattern once. Returns x and the statistics of its MoE layers, stacked."""

    c: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        kept = []
        for i, entry in enumerate(self.c.pattern):
            x_BTD, stats = layer(self.c, self.ex, entry, f"layer_{i}")(x_BTD, ctx)
            if stats:
                kept.append(stats)
        return x_BTD, stack(kept)


def stack(trees):
    """A list of equal trees of arrays as one tree with a leading axis; {} for an empty list."""
    return jax.tree.map(lambda *a: jax.numpy.stack(a), *trees) if trees else {}


def groups(c: Model) -> int:
    """Repetitions of the pattern; a ValueError unless it fills the depth exactly."""
    rest = c.n_layers - len(c.first_layers)
    if rest < 0 or rest % len(c.pattern) or c.first_layers and not rest:
        after = f" after {len(c.first_layers)} of model.first_layers" if c.first_layers else ""
        raise ValueError(
            f"model.n_layers={c.n_layers} is not a multiple of the {len(c.pattern)} layers of"
            f" model.pattern{after}"
        )
    return rest // len(c.pattern)
