"""A model's training step laid out over a mesh: abstract state, shardings by RULES, lowered
programs, and the first state.

Nothing here needs a device but `initial`: a mesh of a described topology compiles as well as a mesh
of real chips.
"""

import contextlib
import functools
import gc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from launch.devices import mesh as meshes
from model import params, step
from model.config import Execution, Model
from model.context import Separator
from model.lm import LM, abstract
from model.optimizers import Optimizer
from model.optimizers.base import HYPER


class Layout(NamedTuple):
    """`state` and `shardings` are States of shapes and of NamedShardings; `boxed` the parameters
    with their logical axes.
    """

    lm: LM
    optimizer: Optimizer
    mesh: Any
    boxed: Any
    state: Any
    shardings: Any


@contextlib.contextmanager
def ambient(mesh):
    """The mesh and the rules that the model's logical axes are read by while it is traced. No
    garbage is collected meanwhile: tracing makes many objects that stay, and looking through them
    again and again is a third of its time.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        with jax.set_mesh(mesh), nn.logical_axis_rules(meshes.RULES):
            yield
    finally:
        if collected:
            gc.enable()


def lay(
    model: Model,
    optimizer: Optimizer,
    ex: Execution,
    mesh,
    separator: Separator | None = None,
    average: bool = False,
) -> Layout:
    """separator: of documents that are kept apart; None: they are joined. average: of the
    parameters, beside them.
    """
    lm, boxed = LM(model, ex, separator), abstract(model, ex)

    with ambient(mesh):
        state = jax.eval_shape(lambda p: step.create(lm, optimizer, nn.unbox(p), average), boxed)
        if jnp.dtype(ex.dtype) == jnp.float64:

            def double(a):
                return (
                    jax.ShapeDtypeStruct(a.shape, jnp.float64)
                    if jnp.issubdtype(a.dtype, jnp.floating)
                    else a
                )

            state = jax.tree.map(double, state)
        param_sh, whole = meshes.shardings(mesh, boxed), meshes.replicated(mesh)
        sh = step.State(
            param_sh,
            _like_params(state.opt, state.params, param_sh, whole),
            jax.tree.map(lambda _: whole, state.buffers),
            param_sh if average else (),
        )
    return Layout(lm, optimizer, mesh, boxed, state, sh)


def _like_params(opt, parameters, param_sh, whole):
    """Shardings of an optimizer state. What stands under a parameter's path is sharded along every
    axis that is as long as the parameter's; the rest, such as counts, is replicated.
    """

    def keys(path):
        return tuple(k.key for k in path if hasattr(k, "key"))

    by_path = {
        keys(path): (a.shape, s)
        for (path, a), s in zip(
            jax.tree_util.tree_leaves_with_path(parameters), jax.tree.leaves(param_sh)
        )
    }

    def one(path, a):
        names = keys(path)
        shape, own = next(
            (by_path[names[i:]] for i in range(len(names)) if names[i:] in by_path), (None, whole)
        )
        if shape is None or shape == a.shape:
            return own
        spec = (*own.spec, *[None] * (len(shape) - len(own.spec)))
        kept = [axis if n == m else None for axis, n, m in zip(spec, shape, a.shape)]
        return NamedSharding(own.mesh, PartitionSpec(*kept))

    return jax.tree_util.tree_map_with_path(one, opt)


def _arguments(l: Layout):
    def place(a, s):
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s)

    return jax.tree.map(place, l.state, l.shardings)


def host_values(l: Layout, shape: tuple, sharding=None) -> dict:
    """What a step is handed besides its batch."""
    names = (*HYPER, *(("average",) if l.state.average else ()))
    return {k: jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding) for k in names}


def lower_train(l: Layout, batch: int, dispatch: int):
    """`step.train_steps` of up to `dispatch` steps on `batch` sequences each, lowered; the state is
    donated.
    """
    rows, whole = meshes.batch_sharding(l.mesh, 1), meshes.replicated(l.mesh)
    tokens = jax.ShapeDtypeStruct((dispatch, batch, l.lm.m.seq_len + 1), np.int32, sharding=rows)
    hyper = host_values(l, (dispatch,), whole)
    count = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
    with ambient(l.mesh):
        program = jax.jit(
            functools.partial(step.train_steps, l.lm, l.optimizer),
            in_shardings=(l.shardings, rows, whole, whole),
            out_shardings=(l.shardings, whole),
            donate_argnums=0,
        )
        return program.lower(_arguments(l), tokens, hyper, count)


def lower_step(l: Layout, batch: int):
    """One `step.train_step` on `batch` sequences, lowered; the state is donated. What a step costs
    is read off it.
    """
    rows, whole = meshes.batch_sharding(l.mesh), meshes.replicated(l.mesh)
    tokens = jax.ShapeDtypeStruct((batch, l.lm.m.seq_len + 1), np.int32, sharding=rows)
    hyper = host_values(l, (), whole)
    with ambient(l.mesh):
        step_of = functools.partial(step.train_step, l.lm, l.optimizer)
        program = jax.jit(
            step_of,
            in_shardings=(l.shardings, rows, whole),
            out_shardings=(l.shardings, whole),
            donate_argnums=0,
        )
        return program.lower(_arguments(l), tokens, hyper)


def lower_evaluate(l: Layout, batch: int, ex: Execution | None = None):
    """`step.eval_step` on `batch` sequences, lowered; executed by `ex`, that of training if
    None.
    """
    lm = LM(l.lm.m, ex or l.lm.ex, l.lm.separator)
    rows, whole = meshes.batch_sharding(l.mesh), meshes.replicated(l.mesh)
    tokens = jax.ShapeDtypeStruct((batch, l.lm.m.seq_len + 1), np.int32, sharding=rows)
    with ambient(l.mesh):
        layouts = (step.variables(l.shardings), rows)
        program = jax.jit(
            functools.partial(step.eval_step, lm), in_shardings=layouts, out_shardings=whole
        )
        return program.lower(step.variables(_arguments(l)), tokens)


def initial(l: Layout, seed: int):
    """The state before the first step, drawn from `seed`. No device ever holds more than its
    shards, and the host one layer of one leaf.
    """

    def one(path, box, a, s):
        return _drawn_shards(params.draws(path, box, seed), a, s)

    drawn = jax.tree_util.tree_map_with_path(
        one, l.boxed, l.state.params, l.shardings.params, is_leaf=params.is_parameter
    )
    return started(l, drawn)


def started(l: Layout, parameters, buffers=None):
    """The state that starts from `parameters` on the devices: moments, counts and averages are
    zero, and buffers unless given.
    """
    zeros = functools.partial(jax.tree.map, lambda a, s: _drawn_shards(None, a, s))
    if buffers is None:
        buffers = zeros(l.state.buffers, l.shardings.buffers)
    average = zeros(l.state.average, l.shardings.average)
    return step.State(parameters, zeros(l.state.opt, l.shardings.opt), buffers, average)


def _drawn_shards(draws, a, sharding):
    """An array of `a`'s shape and dtype, shard by shard: zeros, or what `draws` yields, one slice
    of the leading axis after the other (whole if there is just one).
    """

    def shape(index):
        return tuple(len(range(*i.indices(n))) for i, n in zip(index, a.shape))

    def keyed(index):
        return tuple(i.indices(n) for i, n in zip(index, a.shape))

    indices = sharding.addressable_devices_indices_map(a.shape).values()
    shards = {keyed(index): (index, np.zeros(shape(index), a.dtype)) for index in indices}
    for layer, whole in draws or ():
        for index, shard in shards.values():
            if layer is None:
                shard[...] = whole[index]
            else:
                shard[layer] = whole[index[1:]]  # layers are never sharded
    return jax.make_array_from_callback(a.shape, sharding, lambda index: shards[keyed(index)][1])
