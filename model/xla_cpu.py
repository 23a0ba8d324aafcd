"""What XLA on CPU needs said differently. The functions are the same as without; where a flag
decides, it is `Execution.settle`, which launch/devices/choice.py sets on one CPU for unrolled
layers. Figures of all of them: LOG.md, 2026-11-25 and 26.

made_once           XLA on CPU fuses sums and transposes into whoever reads them, once for every
                    reader, and its barriers are gone by then. It does not look through a
                    conditional; the other branch is for numbers that are lost already.
gradient_made_once  In unrolled layers each layer else adds up the gradients of all layers above it
                    anew, two or three times.
value_made_once     The weights' gradients want a norm's output transposed; XLA else makes the norm
                    again for that, down the columns.
product             The gradient of a matmul's weights multiplies the narrower of two matrices,
                    transposed, by the wider one. XLA makes the transposed copy in any case, and has
                    its fast matmul for this order alone: as jax transposes an einsum, the weights'
                    gradients of an MLP take 1.7 times as long.
outer               The same for a product x^T g written by hand.
turned              A map of attention is made keys by queries: four of its six products then have
                    many rows on the left and few columns on the right, which is up to twice as
                    fast. The keys are turned once, where XLA else turns them once a chunk.
halves              A product of many small matrices gets one thread. Two halves of a batch run
                    beside each other.
added               A sum over an axis that is not the last takes up to twenty times as long as the
                    same numbers added slice by slice.
by_head             So does the gradient of a map that heads share. Where chunks come in turns, each
                    head multiplies it by itself.
columns             So do sums over all tokens, the gradients of weights and biases of channels:
                    `weighted`, `shifted`.
BLOCKS              Widths of the blocks of an expert's rows. Two threads lose least on wide ones,
                    and each width has to be compiled.

What launch/devices/choice.py goes by there (one of AMD, one of Intel, two threads):

SETTLE              A residual stream of so many numbers or more sets `Execution.settle`.
QUERIES             Attention in chunks of queries leaves out what no query of a chunk sees: from
                    256 queries on, chunks of an eighth of them, 64 to 128.
LOGITS              From 4M logits on, the loss takes 8M of them at a time, 256 tokens at least: the
                    head's matmuls keep many rows, and no array of full size stands.
MICRO_BATCHES       Beyond 128 MiB of activations a step takes micro-batches of 2,048 tokens or
                    more: memory that is touched anew costs more than arithmetic.
TURN                Linear recurrences take chunks one after the other, of so many numbers of the
                    residual stream: what a chunk needs stays in the cache (model/mixers/linear.py).
LOOP, loop_rows     Experts' matrices of so many numbers or more are multiplied one expert after the
                    other (model/mlps/expert_loop.py). Rows come in fives, as the matmul takes them,
                    in widest blocks of half a mean load to nearly all of it, 480 at most.
OPTIONS             Of XLA: fewer copies in loops; vectors as wide as the processor has.
The heap            Large pages for the temporaries of a step: launch/devices/allocator.py, which
                    has to run before anything is imported.
"""

import functools
import math

import jax
import jax.numpy as jnp

from model.config import Execution
from model.numerics import einsum

BLOCKS = 12, 6, 2, 1  # in narrow ones
SHORT = 64  # an axis of so many slices is added slice by slice
SLICES = 16  # tokens that are added slice by slice
SETTLE = 2**17
QUERIES = 256, 64, 128  # from so many on; the smallest chunk, the largest
LOGITS = 2**22, 256, 2**23  # from so many on; tokens of a chunk, or logits if that is more
MICRO_BATCHES = 2**27, 2048  # beyond so many bytes; tokens at least
TURN = 2**14
LOOP = 2**15
OPTIONS = (
    ("xla_cpu_copy_insertion_use_region_analysis", True),
    ("xla_cpu_prefer_vector_width", 512),
)


def loop_rows(eighth: int) -> int:
    """Rows of the widest block of a loop, where an eighth of an expert's mean load is `eighth`."""
    return min(480, max(60, 15 * eighth // 2))


def made_once(a):
    """`a`, as one array before anything is made of it."""
    first = a[(0,) * a.ndim]
    return jax.lax.cond(first == first, lambda a: a, lambda a: a + jnp.nan, a)


@jax.custom_vjp
def _gradient_made_once(x):
    return x


_gradient_made_once.defvjp(lambda x: (x, None), lambda _, g: (made_once(g),))


def gradient_made_once(ex: Execution, x):
    """`x`, whose gradient is made once."""
    return _gradient_made_once(x) if ex.settle else x


@jax.custom_vjp
def _value_made_once(x):
    return made_once(x)


_value_made_once.defvjp(lambda x: (made_once(x), None), lambda _, g: (g,))


def value_made_once(ex: Execution, x):
    """`x` made once, its gradient as it comes."""
    return _value_made_once(x) if ex.settle else x


def turned(ex: Execution, a_BTHK):
    """B H K T, made once."""
    a_BHKT = a_BTHK.transpose(0, 2, 3, 1)
    return made_once(a_BHKT) if ex.settle else a_BHKT


def halves(ex: Execution, batch: int) -> list[slice]:
    """Two halves of a batch, or all of it."""
    size = batch // 2 if ex.settle and batch % 2 == 0 else batch
    return [slice(first, first + size) for first in range(0, batch, size)]


def added(a, axis: int):
    """`a.sum(axis)` of a short axis."""
    if a.shape[axis] > SHORT:
        return a.sum(axis)
    return functools.reduce(
        jnp.add, (jax.lax.index_in_dim(a, i, axis, keepdims=False) for i in range(a.shape[axis]))
    )


def by_head(ex: Execution, shared, a, axis: int):
    """``shared * a``, where `a` has one axis more, of heads."""
    if not ex.turn:
        return jnp.expand_dims(shared, axis) * a
    heads = (jax.lax.index_in_dim(a, n, axis, keepdims=False) for n in range(a.shape[axis]))
    return jnp.stack([shared * one for one in heads], axis)


def columns(a_BT):
    """The sum over sequences and tokens."""
    count = math.gcd(a_BT.shape[1], SLICES)
    parts = a_BT.reshape(a_BT.shape[0], -1, count, *a_BT.shape[2:])
    return added(parts, 2).sum((0, 1))


@jax.custom_vjp
def weighted(x_BT, w):
    """``x * w``, of x (B, T, ...) and w (...)."""
    return x_BT * w


weighted.defvjp(
    lambda x_BT, w: (x_BT * w, (x_BT, w)),
    lambda held, g_BT: (g_BT * held[1], columns(g_BT * held[0])),
)


@jax.custom_vjp
def shifted(x_BT, w):
    """``x + w``, of x (B, T, ...) and w (...)."""
    return x_BT + w


shifted.defvjp(lambda x_BT, w: (x_BT + w, None), lambda _, g_BT: (g_BT, columns(g_BT)))


def outer(x_rD, g_rF, dtype):
    """x^T g, kept in `dtype`."""
    x_Dr = jax.lax.optimization_barrier(x_rD.T)
    return einsum("dr,rf->df", x_Dr, g_rF, preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(eq: str, x, w):
    """``einsum(eq, x, w)``; its gradient with respect to `w` in the order that is fast."""
    return einsum(eq, x, w)


def _product_fwd(eq, x, w):
    return einsum(eq, x, w), (x, w)


def _product_bwd(eq, held, g):
    (of_x, of_w), of_y = eq.split("->")[0].split(","), eq.split("->")[1]
    x, w = held
    dx = einsum(f"{of_y},{of_w}->{of_x}", g, w)
    if x.size <= g.size:
        return dx, einsum(f"{of_x},{of_y}->{of_w}", x, g)
    turned = "".join(
        sorted(of_w, key=lambda letter: (letter not in of_x or letter not in of_y, letter in of_x))
    )  # a batch's letters first
    # the barrier keeps XLA from folding the transpose into the matmul, which would turn the
    # operands round again
    dw = jax.lax.optimization_barrier(einsum(f"{of_y},{of_x}->{turned}", g, x))
    return dx, jnp.einsum(f"{turned}->{of_w}", dw)


product.defvjp(_product_fwd, _product_bwd)
