"""Several models of equal shape as one program: a pack. Its state has a leading axis of members,
shared out over the mesh axis `member`, and nothing is communicated along it.

Every function of one model is mapped over the members, so each computes what it would alone.
"""

import functools

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from launch.devices import mesh as meshes
from launch.devices.layout import Layout, ambient, host_values
from model import step
from model.config import Execution
from model.lm import LM


def _over(mesh, tree):
    """Shardings with the leading axis of members before them."""
    first = meshes.MEMBER if meshes.MEMBER in mesh.axis_names else None
    return jax.tree.map(lambda s: NamedSharding(mesh, PartitionSpec(first, *s.spec)), tree)


def _stacked(tree, members: int, shardings=None):
    """Shapes with a leading axis of members, and where they lie."""

    def one(a, s=None):
        return jax.ShapeDtypeStruct((members, *a.shape), a.dtype, sharding=s)

    return jax.tree.map(one, tree, *([shardings] if shardings is not None else []))


def _mapped(l: Layout, of, *axes):
    spread = meshes.MEMBER if meshes.MEMBER in l.mesh.axis_names else None
    return jax.vmap(of, in_axes=axes, spmd_axis_name=spread)


def shardings(l: Layout):
    """Where the members' states lie."""
    return _over(l.mesh, l.shardings)


def batches(l: Layout):
    """Where tokens (members, steps, B, T+1) lie."""
    return _over(l.mesh, meshes.batch_sharding(l.mesh, 1))


def each(l: Layout):
    """Where what every member has a row of lies."""
    return _over(l.mesh, meshes.replicated(l.mesh))


def lower_train(l: Layout, batch: int, dispatch: int, members: int):
    """`layout.lower_train` of so many members: tokens (members, dispatch, B, T+1), and hyper with
    the same two leading axes, `live` among them; `count` is the same for all.
    """
    whole = meshes.replicated(l.mesh)
    count = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
    return _lowered(l, step.train_steps, (dispatch,), batch, members, (None, whole, count))


def lower_step(l: Layout, batch: int, members: int):
    """`layout.lower_step` of so many members."""
    return _lowered(l, step.train_step, (), batch, members)


def _lowered(l: Layout, of, lead: tuple, batch: int, members: int, *more):
    """more: of further arguments, the axis of members, where they lie, and their shape."""
    state, own = shardings(l), each(l)
    rows = _over(l.mesh, meshes.batch_sharding(l.mesh, len(lead)))
    tokens = jax.ShapeDtypeStruct((*lead, batch, l.lm.m.seq_len + 1), np.int32)
    hyper = {**host_values(l, lead), "live": jax.ShapeDtypeStruct(lead, bool)}
    axes, places, shapes = ([m[k] for m in more] for k in range(3))
    with ambient(l.mesh):
        program = jax.jit(
            _mapped(l, functools.partial(of, l.lm, l.optimizer), 0, 0, 0, *axes),
            in_shardings=(state, rows, own, *places),
            out_shardings=(state, own),
            donate_argnums=0,
        )
        return program.lower(
            _stacked(l.state, members, state),
            _stacked(tokens, members, rows),
            jax.tree.map(lambda a: _stacked(a, members, own), hyper),
            *shapes,
        )


def lower_evaluate(l: Layout, batch: int, ex: Execution, members: int):
    """`layout.lower_evaluate` of so many members, all on the same sequences."""
    lm = LM(l.lm.m, ex, l.lm.separator)
    rows, held = meshes.batch_sharding(l.mesh), step.variables(shardings(l))
    with ambient(l.mesh):
        program = jax.jit(
            _mapped(l, functools.partial(step.eval_step, lm), 0, None),
            in_shardings=(held, rows),
            out_shardings=each(l),
        )
        tokens = jax.ShapeDtypeStruct((batch, l.lm.m.seq_len + 1), np.int32, sharding=rows)
        return program.lower(_stacked(step.variables(l.state), members, held), tokens)


def empty(l: Layout, members: int):
    """A state of no runs: zeros."""

    def zeros(a):
        return jax.numpy.zeros(a.shape, a.dtype)

    shapes = _stacked(l.state, members)
    return jax.jit(lambda: jax.tree.map(zeros, shapes), out_shardings=shardings(l))()


def put(l: Layout):
    """(states, one state, its place) -> states; the first are donated."""

    def placed(states, one, place):
        return jax.tree.map(lambda a, x: a.at[place].set(x), states, one)

    return jax.jit(placed, out_shardings=shardings(l), donate_argnums=0)


def take(l: Layout):
    """(states, place) -> the state of one run."""
    return jax.jit(
        lambda states, place: jax.tree.map(lambda a: a[place], states), out_shardings=l.shardings
    )
