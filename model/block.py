"""One layer, and one repetition of the layer pattern."""

import jax
from flax import linen as nn

from model.config import Execution, Model
from model.mixers import MIXERS
from model.mlps import MLPS
from model.norms import NORMS


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x))."""

    c: Model
    ex: Execution
    kind: tuple

    @nn.compact
    def __call__(self, x_BTD):
        mixer, mlp = self.kind
        norm = NORMS[self.c.norm][0]
        x_BTD = x_BTD + MIXERS[mixer].module(self.c, self.ex, name="mixer")(norm(name="norm_mixer")(x_BTD))
        y_BTD, stats = MLPS[mlp].module(self.c, self.ex, name="mlp")(norm(name="norm_mlp")(x_BTD))
        x_BTD = nn.with_logical_constraint(x_BTD + y_BTD, ("batch", "seq", "act_embed"))
        return x_BTD, stats


class Group(nn.Module):
    """The layer pattern once. Returns x and the statistics of its MoE layers, stacked."""

    c: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, _=None):
        block = nn.remat(Block, prevent_cse=not self.ex.scan) if self.ex.remat else Block
        kept = []
        for i, entry in enumerate(self.c.pattern):
            x_BTD, stats = block(self.c, self.ex, tuple(entry.split("/")), name=f"layer_{i}")(x_BTD)
            if stats:
                kept.append(stats)
        return x_BTD, stack(kept)


def stack(trees):
    """A list of equal trees of arrays as one tree with a leading axis; {} for an empty list."""
    return jax.tree.map(lambda *a: jax.numpy.stack(a), *trees) if trees else {}


def groups(c: Model) -> int:
    """Repetitions of the pattern; a ValueError unless it fills the depth exactly."""
    if c.n_layers % len(c.pattern):
        raise ValueError(f"model.n_layers={c.n_layers} is not a multiple of the {len(c.pattern)} layers of model.pattern")
    return c.n_layers // len(c.pattern)
