"""An independent count: the matmuls of a traced program."""

import functools
import math

import jax
import numpy as np
from flax import linen as nn

from model import sample, step
from model.config import Execution
from model.context import Separator
from model.lm import LM, abstract
from model.optimizers import AdamW


def _dot(e) -> tuple[int, bool]:
    (contract_a, contract_b), (batch_a, batch_b) = e.params["dimension_numbers"]
    a, b = (v.aval.shape for v in e.invars)
    flops = 2 * math.prod(e.outvars[0].aval.shape) * math.prod(a[i] for i in contract_a)
    return flops, len(a) > len(contract_a) + len(batch_a) and len(b) > len(contract_b) + len(
        batch_b
    )


def _ragged(e) -> int:
    """By rows: an expert's matrix multiplies its own alone, whichever of the three sides is the
    ragged one.
    """
    numbers = e.params["ragged_dot_dimension_numbers"]
    (contract, _), _ = numbers.dot_dimension_numbers
    a, out = e.invars[0].aval.shape, e.outvars[0].aval.shape
    out = (
        out if numbers.rhs_group_dimensions else out[1:]
    )  # the gradient of the weights has the experts as a leading axis
    return 2 * math.prod(out) * math.prod(a[i] for i in contract)


def products(jaxpr, turns=None, times=1):
    """(equation, how often it runs) of every `dot_general` and `ragged_dot_general`: in a scan as
    often as it is long, in loops of unknown length `turns` times.
    """
    for e in jaxpr.eqns:
        if e.primitive.name in ("dot_general", "ragged_dot_general"):
            yield e, times
        known = turns is not None or e.primitive.name != "while"
        assert known and e.primitive.name != "conv_general_dilated", "the walk has no rule for it"
        inside = times * {"scan": e.params.get("length"), "while": turns}.get(e.primitive.name, 1)
        for inner in _inner(e):
            yield from products(inner, turns, inside)


def _inner(e):
    for v in e.params.values():
        for s in v if isinstance(v, (tuple, list)) else (v,):
            inner = getattr(s, "jaxpr", s)
            if hasattr(inner, "eqns"):
                yield inner


def counted(jaxpr, times=1):
    """(equation, how often it runs) of every product of numbers in a recurrence: those in the scope
    that model/mixers/recurrent.py names.
    """
    for e in jaxpr.eqns:
        if e.primitive.name == "mul" and "recurrence" in str(e.source_info.name_stack):
            yield e, times
        for inner in _inner(e):
            yield from counted(inner, times * (e.params.get("length") or 1))


def transforms(jaxpr, times=1):
    """FLOPs of every Fourier transform of real numbers, 2.5 n log2(n) of n."""
    for e in jaxpr.eqns:
        if e.primitive.name == "fft":
            (n,), shape = e.params["fft_lengths"], e.invars[0].aval.shape
            assert "R" in e.params["fft_type"].name, "the walk has no rule for it"
            yield times * math.prod(shape[:-1]) * round(2.5 * n * math.log2(n))
        for inner in _inner(e):
            yield from transforms(inner, times * (e.params.get("length") or 1))


def flops(jaxpr, matrices_only: bool = False, turns=None) -> int:
    """2 x multiply-adds of all `products` and `counted` ones. matrices_only: leaves out weighted
    sums of vectors, in which one side has no axis of its own.
    """
    n = sum(transforms(jaxpr))
    for e, times in counted(jaxpr):
        n += 2 * times * math.prod(e.outvars[0].aval.shape)
    for e, times in products(jaxpr, turns):
        own, matrices = _dot(e) if e.primitive.name == "dot_general" else (_ragged(e), True)
        n += times * own if matrices or not matrices_only else 0
    return n


@functools.cache
def state(c, ex):
    """The abstract State of a model."""
    return jax.eval_shape(lambda p: step.create(LM(c, ex), AdamW(), nn.unbox(p)), abstract(c, ex))


def batch(c, n, more=0):
    return jax.ShapeDtypeStruct((n, c.seq_len + more), np.int32)


def lm(c, ex):
    """The model, with documents apart where `ex` says so."""
    return LM(c, ex, Separator(3) if ex.apart else None)


def forward(c, ex, n):
    """The traced forward pass on `n` sequences."""
    return jax.make_jaxpr(lambda s, t: lm(c, ex).apply(step.variables(s), t)[0])(
        state(c, ex), batch(c, n)
    ).jaxpr


def decoding(c, n):
    """The traced step of a decoder, one token more for each of `n` sequences."""
    ex, pad = Execution(), np.zeros(n, np.int32)
    one_lm, tokens = LM(c, ex), jax.ShapeDtypeStruct((n, 1), np.int32)

    def first(s, t):
        return sample.prefill(one_lm, step.variables(s), t, pad, 2)[1]

    def one(s, t, cache):
        return sample.decode(one_lm, step.variables(s), t, pad, 2, 1, cache)[0]

    cache = jax.eval_shape(first, state(c, ex), tokens)
    return jax.make_jaxpr(one)(state(c, ex), tokens, cache).jaxpr


def training(c, ex, n):
    """The traced forward and backward pass."""
    return jax.make_jaxpr(lambda s, t: step.gradients(lm(c, ex), s, t))(
        state(c, ex), batch(c, n, 1)
    ).jaxpr
