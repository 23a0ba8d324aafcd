"""A gated convolution (Dauphin et al. 2017, arXiv 1612.08083, eq 1): (X * W + b) sigmoid(X * V +
c), causal convolutions over a few tokens that mix all channels. What a token sees is as wide as the
convolution, layer by layer.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.recurrent import Recurrent, conv_state, whole
from model.numerics import precise
from model.params import declare
from model.state import State
from model.work import Work, matmuls, size
from model.xla_cpu import product


@dataclasses.dataclass(frozen=True)
class GatedConv(Recurrent):
    """A convolution with a gated linear unit."""

    conv: int = 4  # tokens that it sees

    apart = True

    @property
    def window(self) -> int:
        return self.conv

    def check(self, m: Model) -> None:
        config.positive(self, ("conv",), "model.gated_conv")

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mixer": self.multiplied(m) + 2 * m.d_model}

    def multiplied(self, m: Model) -> int:
        return 2 * self.conv * m.d_model**2

    def recurrence(self, m: Model) -> int:
        """None: all of it is matrices."""
        return 0

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens = batch * m.seq_len
        kept = tokens * m.d_model * (self.conv + 4) * size(ex)
        return matmuls(2 * tokens * self.multiplied(m), kept=kept)

    def state(self, m: Model) -> State:
        return State(per_sequence=conv_state(self.conv, m.d_model))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "model.d_model", m.d_model)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _GatedConv(self, m, ex, name=name)


class _GatedConv(nn.Module):
    p: GatedConv
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        width, d, dtype = self.p.conv, self.m.d_model, x_BTD.dtype
        ctx = ctx or context.plain(x_BTD.shape[1])
        shape, axes = (width, d, 2, d), (None, "embed", None, "channels")
        sides = (-4, -3), (-1,)  # all taps are one matrix's inputs; values and gates have one each
        kernel = declare(self, "kernel", shape, axes, (width * d) ** -0.5, matrix=sides)
        x_BTD, length = context.real(whole(x_BTD), ctx), x_BTD.shape[1]

        def made(before_BwD):
            both = jnp.concatenate([before_BwD.astype(dtype), x_BTD], 1)
            y_BTpU = sum(
                product(
                    "btd,dpu->btpu",
                    context.own(both[:, i : i + length], width - 1 - i, ctx),
                    kernel[i].astype(self.ex.dtype),
                )
                for i in range(width)
            )
            return y_BTpU, precise(both[:, both.shape[1] - width + 1 :])

        shape = (x_BTD.shape[0], width - 1, d)
        y_BTpU = precise(context.carry(self, "inputs", shape, dtype, ctx, made))
        y_BTpU += declare(self, "bias", (2, d), (None, "channels"))
        return (y_BTpU[:, :, 0] * jax.nn.sigmoid(y_BTpU[:, :, 1])).astype(dtype)
