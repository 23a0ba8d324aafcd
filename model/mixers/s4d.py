"""S4D (Gu et al. 2022, arXiv 2206.11893, eq 2, 4 and 9): every channel has a diagonal state space
of Z complex numbers, h_t = exp(dt A) h_(t-1) + B x_t, y_t = 2 Re(C h_t) + D x_t, with the
zero-order hold B = (exp(dt A) - 1) / A; then gelu, and a matrix to twice d_model whose halves gate
each other (as the authors' code, state-spaces/s4).

Since A does not depend on the token, a chunk is one product with the kernel as a Toeplitz matrix,
and what was before comes through the state: no Fourier transform, and no array as large as
sequences x tokens x channels x states. Documents that are kept apart have no kernel in common: they
are read a token at a time.

Starts: A = -1/2 + i pi n (S4D-Lin, eq 9), C normal, dt log-uniform in [0.001, 0.1].
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.diagonal import times
from model.mixers.linear import in_chunks
from model.mixers.recurrent import Recurrent, counted, whole
from model.numerics import einsum, precise
from model.params import Einsum, declare
from model.starts import Linear, LogUniform
from model.state import State
from model.work import Work, matmuls, size, total


@dataclasses.dataclass(frozen=True)
class S4D(Recurrent):
    """A diagonal state space of every channel."""

    d_state: int = 64  # numbers of state a channel, two a complex one

    apart = True

    def states(self) -> int:
        """Complex numbers of a channel, Z."""
        return self.d_state // 2

    def check(self, m: Model) -> None:
        config.positive(self, ("d_state",), "model.s4d")
        if self.d_state % 2:
            raise ValueError(
                f"model.s4d.d_state={self.d_state} must be even: a complex number is two"
            )

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mixer": self.multiplied(m) + m.d_model * (4 * self.states() + 2)}

    def multiplied(self, m: Model) -> int:
        return 2 * m.d_model**2

    def recurrence(self, m: Model) -> int:
        """A complex multiply-add and half of one to read it, for every complex number."""
        return 12 * m.d_model * self.states()

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        """Executed: the Toeplitz product, update and read of every chunk, and the kernel. Where
        documents are kept apart, the recurrence.
        """
        d, z, chunk = m.d_model, self.states(), min(ex.chunk, m.seq_len)
        tokens, filled = batch * m.seq_len, batch * chunk * -(-m.seq_len // chunk)
        outer = matmuls(2 * tokens * self.multiplied(m), kept=6 * tokens * d * size(ex))
        if ex.apart:  # a token at a time; states of a chunk once more in the backward pass
            one = filled * self.recurrence(m)
            state = 4 * 2 * batch * d * z
            kept = 4 * filled * d * 3 + state * filled // (batch * chunk)
            return total((outer, Work(one, 2 * one + one * 2 // 3, one, kept, spare=state * chunk)))
        inner = 2 * filled * d * (chunk + 4 * z) + 4 * d * z * chunk
        kept = 4 * (filled * d * 3 + filled // chunk * 4 * d * z + d * chunk * (chunk + 8 * z))
        return total((outer, matmuls(inner, kept=kept)))

    def state(self, m: Model) -> State:
        return State(per_sequence=2 * m.d_model * self.states())

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "model.d_model", m.d_model)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _S4D(self, m, ex, name=name)


def toeplitz(k_Ui):
    """M[i, j] = k[i - j], 0 above the diagonal: (U, i, j), by slices alone."""
    channels, count = k_Ui.shape
    turned = jnp.concatenate([k_Ui[:, :1], jnp.zeros_like(k_Ui), k_Ui[:, :0:-1]], 1)
    many = jnp.tile(turned, (1, count))[:, : count * (2 * count - 1)]
    return many.reshape(channels, count, 2 * count - 1)[:, :, :count]


class _S4D(nn.Module):
    p: S4D
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        m, ex, d, z = self.m, self.ex, self.m.d_model, self.p.states()
        ctx = ctx or context.plain(x_BTD.shape[1])

        def vectors(name, **start):
            return declare(self, name, (d, z), ("channels", None), **start)

        steps_U1 = jnp.exp(
            declare(self, "steps_bias", (d,), ("channels",), start=LogUniform(1e-3, 0.1, True))
        )[:, None]
        rate = (
            -jnp.exp(vectors("rates", start=LogUniform(0.5, 0.5))),
            vectors("turns", start=Linear()),
        )
        log = tuple(steps_U1 * part for part in rate)
        c = vectors("c_real", std=0.5**0.5), vectors("c_imag", std=0.5**0.5)
        a, size_UZ = power(log, 1), rate[0] ** 2 + rate[1] ** 2
        # 2 C (A - 1) / rate
        held = times((a[0] - 1, a[1]), (rate[0] / size_UZ, -rate[1] / size_UZ))
        read = tuple(2 * part for part in times(c, held))
        x_BTU = precise(context.real(whole(x_BTD), ctx))

        def made(kept_BpUZ):
            if context.steps(x_BTU, ctx):
                return _step(a, read, x_BTU, kept_BpUZ)
            if ctx.document_BT is not None:
                return _by_token(ex.chunk, a, read, x_BTU, context.going_on(ctx), kept_BpUZ)
            return _chunked(min(ex.chunk, x_BTU.shape[1]), log, read, x_BTU, kept_BpUZ)

        y_BTU = context.carry(self, "state", (x_BTD.shape[0], 2, d, z), x_BTU.dtype, ctx, made)
        skip_D = declare(self, "skip", (d,), ("channels",), 1.0)
        y_BTU = jax.nn.gelu(y_BTU + x_BTU * skip_D).astype(ex.dtype)
        y_BTpD = Einsum("btu,upd->btpd", (d, 2, d), ("channels", None, "embed"), d,
                        (2 * m.n_layers) ** -0.5, ex.dtype, stacked="p",
                        name="out")(y_BTU)  # fmt: skip
        return y_BTpD[:, :, 0] * jax.nn.sigmoid(precise(y_BTpD[:, :, 1])).astype(ex.dtype)


def power(log, count):
    """exp(log)^count of complex numbers, as a pair (real, imaginary)."""
    size = jnp.exp(count * log[0])
    return size * jnp.cos(count * log[1]), size * jnp.sin(count * log[1])


def _step(a, read, x_B1U, kept_BpUZ):
    """The recurrence itself; the state is that of inputs not yet multiplied by B."""
    state = kept_BpUZ[:, 0], kept_BpUZ[:, 1]
    with counted():
        now = times(a, state)
    real, imag = now[0] + x_B1U[:, 0, :, None], now[1]
    with counted():
        y_BU = (read[0] * real - read[1] * imag).sum(-1)
    return y_BU[:, None], jnp.stack([real, imag], 1)


def _by_token(chunk, a, read, x_BTU, going_BT, kept_BpUZ):
    """The recurrence over all tokens, from zero where a document begins. Kept for the backward pass
    is the state before each chunk.
    """
    batch, length, channels = x_BTU.shape

    def token(state, now):
        x_BU, going_B = now
        y_B1U, state = _step(a, read, x_BU[:, None], context.kept(state, going_B))
        return state, y_B1U[:, 0]

    @jax.checkpoint
    def some(state, now):
        return jax.lax.scan(token, state, now)

    parts = tuple(jnp.moveaxis(in_chunks(x, min(chunk, length)), 0, 2) for x in (x_BTU, going_BT))
    after, y_ciBU = jax.lax.scan(some, kept_BpUZ, parts)
    return y_ciBU.reshape(-1, batch, channels).swapaxes(0, 1)[:, :length], after


def _chunked(chunk, log, read, x_BTU, kept_BpUZ):
    batch, length, channels = x_BTU.shape
    powers = power(tuple(part[..., None] for part in log), np.arange(chunk + 1))  # U Z i
    x_UBci = in_chunks(x_BTU, chunk).transpose(3, 0, 1, 2)

    def of_real(a):
        """What a pair is multiplied by for the real part of a product."""
        return jnp.stack([a[0], -a[1]], 1)

    k_Ui = einsum("upz,upzi->ui", of_real(read), jnp.stack([x[..., :-1] for x in powers], 1))
    inside = einsum("uij,ubcj->ubci", toeplitz(k_Ui), x_UBci)
    to_end = jnp.stack([jnp.flip(x[..., :-1], -1) for x in powers], 1)
    update = einsum("upzj,ubcj->ubcpz", to_end, x_UBci)
    last = tuple(x[..., -1] for x in powers)

    def one(state, now):
        return jnp.stack(times(last, (state[:, 0], state[:, 1])), 1) + now, state

    after, before = jax.lax.scan(one, kept_BpUZ, update.transpose(2, 1, 3, 0, 4))
    reads = of_real(times(tuple(x[..., None] for x in read), tuple(x[..., 1:] for x in powers)))
    earlier = einsum("upzi,ubcpz->ubci", reads, before.transpose(3, 1, 0, 2, 4))
    y_BTU = (inside + earlier).transpose(1, 2, 3, 0).reshape(batch, -1, channels)[:, :length]
    return y_BTU, after
