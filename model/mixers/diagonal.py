"""Linear recurrences of numbers that do not see each other, h_t = a_t h_(t-1) + u_t: what RG-LRU
and S5 share. Complex numbers are pairs (real, imaginary).

Chunks of about sqrt(T) tokens go through their tokens side by side, from a state of zero; then one
after the other takes what the one before hands on. So a loop has 2 sqrt(T) turns in place of T, on
arrays that are wide. Nothing is divided by a product of decays.
"""

import math

import jax
import jax.numpy as jnp

from model import context
from model.mixers.linear import in_chunks
from model.mixers.recurrent import counted
from model.work import Work


def times(a, b):
    """a b, of numbers, or of pairs as complex numbers."""
    if len(a) == 1:
        return (a[0] * b[0],)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def plus(a, b):
    return tuple(x + y for x, y in zip(a, b))


def scan(a_BTU, u_BTU, state_BU):
    """(h_BTU, the state after the last token); every argument a tuple of one array or of
    two. `a` may have one row for all sequences."""
    length = u_BTU[0].shape[1]
    chunk = width(length)

    def steps_first(x_BTU):
        return in_chunks(x_BTU, chunk).transpose(2, 0, 1, 3)  # i B c U

    a, u = (tuple(map(steps_first, x)) for x in (a_BTU, u_BTU))
    filled = -length % chunk
    if filled:  # the state goes on unchanged
        last = [jnp.ones, jnp.zeros][: len(a)]
        a = tuple(_filled(x, f, filled) for x, f in zip(a, last))

    def inside(carry, now):
        (h, product), (a, u) = carry, now
        with counted():
            h = plus(times(a, h), u)
        product = times(a, product)
        return (h, product), (h, product)

    empty = tuple(jnp.zeros_like(x[0]) for x in u)
    one = tuple(f(x.shape[1:], x.dtype) for f, x in zip((jnp.ones, jnp.zeros), a))
    (end, product), (h, products) = jax.lax.scan(inside, (empty, one), (a, u))

    def between(state, now):
        return plus(times(now[0], state), now[1]), state

    chunks = tuple(tuple(x.swapaxes(0, 1) for x in y) for y in (product, end))
    last, before = jax.lax.scan(between, state_BU, chunks)
    h = plus(h, times(products, tuple(x.swapaxes(0, 1)[None] for x in before)))
    return tuple(_joined(x, length) for x in h), last


def _filled(a_iBcU, make, count: int):
    """`a` with what `make` gives at the last `count` positions of the last chunk."""
    return a_iBcU.at[-count:, :, -1].set(make(a_iBcU[-count:, :, -1].shape, a_iBcU.dtype))


def _joined(h_iBcU, length: int):
    h_BciU = h_iBcU.transpose(1, 2, 0, 3)
    return h_BciU.reshape(h_BciU.shape[0], -1, h_BciU.shape[3])[:, :length]


def step(a_BU, u_BU, state_BU):
    """The recurrence itself."""
    with counted():
        return plus(times(a_BU, state_BU), u_BU)


def width(length: int) -> int:
    """Tokens of a chunk."""
    return max(1, math.isqrt(length))


def flops(channels: int, parts: int = 1) -> int:
    """A token's: 2 for each multiply-add, of which a complex one has four."""
    return 2 * channels * parts**2


def work(batch: int, length: int, channels: int, parts: int = 1) -> Work:
    """Executed: the recurrence inside of chunks, the last one filled up."""
    chunk = width(length)
    tokens = batch * chunk * -(-length // chunk)
    one = tokens * flops(channels, parts)
    return Work(one, 2 * one, one, kept=4 * 5 * tokens * channels * parts)


def mix(module, ctx: context.Context, a_BTU, u_BTU):
    """h_BTU, of tokens after a state that a decoder keeps; tuples as in `scan`."""
    u_BTU = tuple(context.real(x, ctx) for x in u_BTU)
    a_BTU = tuple(context.own(x, 1, ctx) for x in a_BTU)  # 0 at a document's first token
    batch, _, channels = u_BTU[0].shape

    def made(kept_BpU):
        state = tuple(kept_BpU[:, i] for i in range(len(u_BTU)))
        if context.steps(u_BTU[0], ctx):
            h = step(tuple(x[:, 0] for x in a_BTU), tuple(x[:, 0] for x in u_BTU), state)
            return tuple(x[:, None] for x in h), jnp.stack(h, 1)
        h, last = scan(a_BTU, u_BTU, state)
        return h, jnp.stack(last, 1)

    shape = (batch, len(u_BTU), channels)
    return context.carry(module, "state", shape, u_BTU[0].dtype, ctx, made)
