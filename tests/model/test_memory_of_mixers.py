"""Nothing in a program is as large as sequences x tokens x channels x states: the shapes of every
value of the traced forward and backward pass, on the CPU's own choice and on a GPU's.
"""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from launch.config import Where
from launch.devices import choice
from model import parts
from model.params import is_parameter
from model.registry import MIXERS
from tests.model import walk

BATCH, LENGTH = 2, 2048
MANY = ("mamba", "mamba2", "s4d", "gla", "gated_delta", "rwkv7", "retnet", "linear_attention")


def shapes(jaxpr):
    for e in jaxpr.eqns:
        yield from (v.aval.shape for v in e.outvars if hasattr(v.aval, "shape"))
        for inner in walk._inner(e):
            yield from shapes(inner)


@functools.cache
def largest(name: str, platform: str) -> int:
    """Numbers of the largest value of a mixer's forward and backward pass."""
    m = parts.model(f"{name}/dense", d_model=64, n_layers=1, seq_len=LENGTH, vocab_size=8)
    ex = choice.execution(m, Where(), "float32", platform, 1, BATCH * LENGTH)
    module = m.pattern[0].mixer.module(m, ex, "mixer")
    x_BTD = jax.ShapeDtypeStruct((BATCH, LENGTH, m.d_model), jnp.float32)
    boxed = jax.eval_shape(module.init, jax.random.key(0), x_BTD)["params"]
    w = jax.tree.map(lambda box: box.value, boxed, is_leaf=is_parameter)

    def gradient(w, x_BTD, g_BTD):
        return jax.vjp(lambda w, x: module.apply({"params": w}, x), w, x_BTD)[1](g_BTD)

    traced = jax.make_jaxpr(gradient)(w, x_BTD, x_BTD)
    return max(math.prod(shape) for shape in shapes(traced.jaxpr))


def test_every_mixer_with_a_wide_state_is_among_them():
    m = parts.model("attention/dense", d_model=64, n_layers=1, seq_len=LENGTH, vocab_size=8)
    others = [c for n, c in MIXERS.items() if n not in (*MANY, "latent")]
    assert all(c().state(m).per_sequence < 8 * m.d_model for c in others)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("name", MANY)
def test_nothing_holds_the_state_of_every_token(name, platform):
    m = parts.model(f"{name}/dense", d_model=64, n_layers=1, seq_len=LENGTH, vocab_size=8)
    state = m.pattern[0].mixer.state(m).per_sequence
    assert state >= 8 * m.d_model
    assert largest(name, platform) <= BATCH * LENGTH * state / 3.5
