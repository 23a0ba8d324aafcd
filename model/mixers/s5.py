"""S5 (Smith et al. 2022, arXiv 2208.04933, eq 2 and 4, section 3): one state space for all
channels, h_t = A h_(t-1) + B x_t, y_t = Re(C h_t) + D x_t, with a diagonal A = exp(dt L) of complex
numbers, of which half are kept, for the others are their conjugates; then gelu(y) sigmoid(gelu(y)
W).

Starts: L is the spectrum of HiPPO-N, -1/2 and i times that of its skew part (section 3.2); dt
log-uniform in [0.001, 0.1]. B and C are normal in the eigenbasis, as a normal matrix is in any
orthonormal basis.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import diagonal
from model.mixers.recurrent import Recurrent
from model.numerics import precise
from model.params import Einsum, declare
from model.starts import Hippo, LogUniform
from model.state import State
from model.work import Work, matmuls, size, total


@dataclasses.dataclass(frozen=True)
class S5(Recurrent):
    """A state space over all channels together."""

    d_state: int = 0  # numbers of state, two a complex one; 0: d_model

    apart = True

    def states(self, m: Model) -> int:
        """Complex numbers, U."""
        return (self.d_state or m.d_model) // 2

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.s5")
        if (self.d_state or m.d_model) % 2:
            raise ValueError(
                f"model.s5.d_state={self.d_state or m.d_model} must be even: a complex number is"
                " two"
            )

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mixer": self.multiplied(m) + 3 * self.states(m) + m.d_model}

    def multiplied(self, m: Model) -> int:
        """B and C, real and imaginary, and the gate."""
        return m.d_model * (4 * self.states(m) + m.d_model)

    def recurrence(self, m: Model) -> int:
        return diagonal.flops(self.states(m), 2)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, u = batch * m.seq_len, self.states(m)
        kept = tokens * (4 * m.d_model + 4 * u) * size(ex)
        return total(
            (
                matmuls(2 * tokens * self.multiplied(m), kept=kept),
                diagonal.work(batch, m.seq_len, u, 2),
            )
        )

    def state(self, m: Model) -> State:
        return State(per_sequence=2 * self.states(m))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "half of model.s5.d_state", self.states(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _S5(self, m, ex, name=name)


class _S5(nn.Module):
    p: S5
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        ex, u, d = self.ex, self.p.states(self.m), self.m.d_model
        ctx = ctx or context.plain(x_BTD.shape[1])

        def vector(name, start):
            return declare(self, name, (u,), ("channels",), start=start)

        steps_U = jnp.exp(vector("steps_bias", LogUniform(1e-3, 0.1, True)))
        real_U, turn_U = -jnp.exp(vector("rates", LogUniform(0.5, 0.5))), vector("turns", Hippo())
        grown = jnp.exp(steps_U * real_U)
        a = grown * jnp.cos(steps_U * turn_U), grown * jnp.sin(steps_U * turn_U)
        # (A - 1) / L, what an input is multiplied by
        size_U = real_U**2 + turn_U**2
        by = (
            ((a[0] - 1) * real_U + a[1] * turn_U) / size_U,
            (a[1] * real_U - (a[0] - 1) * turn_U) / size_U,
        )
        x_BTpU = Einsum("btd,dpu->btpu", (d, 2, u), ("embed", None, "channels"), 2 * d,
                        dtype=ex.dtype, stacked="p", name="b")(x_BTD)  # fmt: skip
        u_BTU = diagonal.times(by, (precise(x_BTpU[:, :, 0]), precise(x_BTpU[:, :, 1])))
        length = x_BTD.shape[1]
        a_BTU = tuple(jnp.broadcast_to(x, (1, length, u)) for x in a)
        h_BTpU = jnp.stack(diagonal.mix(self, ctx, a_BTU, u_BTU), 2).astype(ex.dtype)
        # Re(C h) of all numbers: the factor 2 of the conjugates is in C
        y_BTD = Einsum("btpu,pud->btd", (2, u, d), (None, "channels", "embed"), 2 * u, 2**0.5,
                       dtype=ex.dtype, stacked="p", name="c")(h_BTpU)  # fmt: skip
        skip_D = declare(self, "skip", (d,), ("act_embed",), 1.0)
        y_BTD = jax.nn.gelu(precise(y_BTD) + precise(x_BTD) * skip_D).astype(ex.dtype)
        gate = Einsum("btd,de->bte", (d, d), ("embed", None), d, dtype=ex.dtype, name="gate")
        return y_BTD * jax.nn.sigmoid(precise(gate(y_BTD))).astype(ex.dtype)
