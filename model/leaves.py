"""What each array of the parameters is: an embedding, a matrix, a vector. Optimizers and
parametrisations treat leaves by it.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from model.config import Execution, Model
from model.parametrisation import SAME, Row

# the arrays that tokens and positions are looked up in, and the head, by their names in the tree
ENDS = ("embed", "positions", "head")


class Leaf(NamedTuple):
    """A leaf of the parameters. `rows` and `cols` are the axes of a matrix's inputs and outputs,
    counted from the end; every other axis numbers matrices: scanned layers, experts, gates. Both
    are () for a vector.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    rows: tuple[int, ...] = ()
    cols: tuple[int, ...] = ()
    factors: Row = SAME  # of its rates and of eps, by the model's parametrisation

    @property
    def kind(self) -> str:
        """embed | positions | head | matrix (a hidden one) | vector"""
        end = next((name for name in ENDS if name in self.path), "")
        return end or ("matrix" if self.cols else "vector")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def sides(self) -> tuple[int, int]:
        """Inputs and outputs of one matrix."""
        n_rows, n_cols = (math.prod(self.shape[i] for i in side) for side in (self.rows, self.cols))
        return n_rows, n_cols

    @property
    def matrices(self) -> int:
        """How many matrices the leaf holds."""
        return self.size // math.prod(self.sides)


@functools.cache
def leaves(m: Model, ex: Execution):
    """A tree like the parameters, of Leaves. Computes no array."""
    import jax

    from model.lm import abstract
    from model.params import is_parameter

    def one(path, box):
        names = tuple(str(k.key) for k in path if hasattr(k, "key"))
        factors = m.parametrisation.factors(m, names, bool(box.matrix))
        return Leaf(names, box.value.shape, *(box.matrix or ((), ())), factors)

    return jax.tree_util.tree_map_with_path(one, abstract(m, ex), is_leaf=is_parameter)


def each(tree) -> list[Leaf]:
    """The Leaves of a tree of them."""
    import jax

    return jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Leaf))


class Inventory(NamedTuple):
    """The leaves of a model, for counting; looked up where they are wanted, which takes a trace."""

    total: int  # parameters
    m: Model

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        return of(self.m)


@functools.cache
def of(m: Model) -> tuple[Leaf, ...]:
    """The Leaves of a model, layers scanned, so that depth costs nothing."""
    return tuple(each(leaves(m, Execution(scan=True))))
