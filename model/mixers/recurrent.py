"""What mixers with a state share: counts by the recurrence, projections to heads, a short
convolution over time, norms of heads.

A recurrence is counted by its definition, 2 FLOPs for each multiply-add that it makes of a state or
of inputs, whatever form executes it; many papers leave it out. Decays, gates and nonlinearities are
elementwise and not counted, as everywhere here. Products that are no matmuls and count stand inside
`counted`, a name that the tests' walk over a program knows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import context
from model.config import Execution, Model
from model.numerics import precise
from model.params import Einsum, declare
from model.starts import Uniform
from model.xla_cpu import columns, shifted, weighted

counted = functools.partial(jax.named_scope, "recurrence")


class Recurrent:
    """Counts of a mixer without a map: what its recurrence takes does not grow with the context."""

    def recurrence(self, m: Model) -> int:
        """Forward FLOPs of a token outside of the matrices."""
        raise NotImplementedError

    def map_flops(self, m: Model, causal: bool) -> int:
        return self.recurrence(m)


def divided(value: int, by: int, what: str, name: str) -> None:
    """Raises ValueError unless `by`, the field called `name`, divides `value`."""
    if value % by:
        fits = [n for n in range(1, value + 1) if value % n == 0]
        near = min(fits, key=lambda n: abs(n - by))
        raise ValueError(f"{name}={by} does not divide {what}={value}: try {near}")


def to_heads(
    m: Model, ex: Execution, name: str, heads: int, width: int, split: bool = True, bias=False
):
    """The projection of D to heads; `split`: over the devices that heads are split over."""
    axes = ("embed", "heads" if split else None, "head_dim")
    return Einsum("btd,dhk->bthk", (m.d_model, heads, width), axes, m.d_model, dtype=ex.dtype,
                  bias=bias, name=name)  # fmt: skip


def to_channels(m: Model, ex: Execution, name: str, width: int, split: bool = True, bias=False):
    """The projection of D to channels."""
    axes = ("embed", "channels" if split else None)
    return Einsum("btd,du->btu", (m.d_model, width), axes, m.d_model, dtype=ex.dtype, bias=bias,
                  name=name)  # fmt: skip


def from_heads(m: Model, ex: Execution, heads: int, width: int, bias: bool = False) -> Einsum:
    """The projection of heads back to D, which starts 1/sqrt(2 L) smaller, as attention's."""
    shape, gain = (heads, width, m.d_model), (2 * m.n_layers) ** -0.5
    axes = ("heads", "head_dim", "embed")
    return Einsum("bthk,hkd->btd", shape, axes, heads * width, gain=gain, dtype=ex.dtype,
                  bias=bias, name="out")  # fmt: skip


def from_channels(m: Model, ex: Execution, width: int, bias: bool = False) -> Einsum:
    """The projection of channels back to D, which starts 1/sqrt(2 L) smaller."""
    shape, axes, gain = (width, m.d_model), ("channels", "embed"), (2 * m.n_layers) ** -0.5
    return Einsum("btu,ud->btd", shape, axes, width, gain=gain, dtype=ex.dtype, bias=bias,
                  name="out")  # fmt: skip


def whole(x_BTD):
    """What goes into a mixer, where its first step is no matrix: not split by its channels. Else
    the split reaches back to the embedding, and XLA (jax 0.10.2), which has to split the gather
    there once more inside the loop over micro-batches, takes other rows.
    """
    return nn.with_logical_constraint(x_BTD, ("batch", "seq", "act_embed"))


@jax.custom_vjp
def _conv(both_BTU, kernel_wU, seen):
    """y_t = sum_i kernel_i x_(t + i), of as many more x as a kernel has before its last weight.
    seen: of each weight, where it reads a token of the same document, (B, T); None: everywhere.
    """
    count = both_BTU.shape[1] - kernel_wU.shape[0] + 1
    with counted():
        return sum(
            k_U * _only(both_BTU[:, i : i + count], seen[i]) for i, k_U in enumerate(kernel_wU)
        )


def _only(a_BT, seen_BT):
    if seen_BT is None:
        return a_BT
    return jnp.where(seen_BT.reshape(*seen_BT.shape, *[1] * (a_BT.ndim - 2)), a_BT, 0)


def _conv_bwd(held, g_BTU):
    both_BTU, kernel_wU, seen = held
    count, width, rest = g_BTU.shape[1], kernel_wU.shape[0], [(0, 0)] * (g_BTU.ndim - 2)
    with counted():
        each = [
            (k_U * g_BTU, g_BTU * _only(both_BTU[:, i : i + count], seen[i]))
            for i, k_U in enumerate(kernel_wU)
        ]
    d_both = sum(
        jnp.pad(_only(d_BTU, seen[i]), [(0, 0), (i, width - 1 - i), *rest])
        for i, (d_BTU, _) in enumerate(each)
    )
    return d_both, jnp.stack([columns(k_BTU) for _, k_BTU in each]), None


_conv.defvjp(lambda *held: (_conv(*held), held), _conv_bwd)


class ShortConv(nn.Module):
    """A causal convolution over `width` tokens, of every channel by itself: shifts and adds. A
    decoder keeps its last width - 1 inputs. Starts as torch's, uniform in +-1/sqrt(width).
    """

    width: int
    axes: tuple[Any, ...]  # of the channels
    bias: bool = True

    @nn.compact
    def __call__(self, x_BTU, ctx: context.Context):
        width, shape = self.width, x_BTU.shape[2:]
        start = Uniform(-(width**-0.5), width**-0.5)
        kernel_wU = declare(self, "kernel", (width, *shape), (None, *self.axes), start=start)
        x_BTU, dtype = context.real(x_BTU, ctx), x_BTU.dtype

        def made(before_BwU):
            both = jnp.concatenate([before_BwU.astype(dtype), x_BTU], 1)
            lags = [
                None if ctx.document_BT is None else ctx.at >= width - 1 - i for i in range(width)
            ]
            y = _conv(both, kernel_wU.astype(dtype), lags)
            return y, precise(both[:, both.shape[1] - width + 1 :])

        y_BTU = context.carry(self, "inputs", (x_BTU.shape[0], width - 1, *shape), dtype, ctx, made)
        if self.bias:
            y_BTU = shifted(
                y_BTU, declare(self, "bias", shape, self.axes, start=start).astype(dtype)
            )
        return y_BTU


def token_before(module: nn.Module, x_BTD, ctx: context.Context):
    """x of the token before, zeros before a document's first; a decoder keeps the last one."""
    x_BTD = context.real(whole(x_BTD), ctx)

    def made(before_B1D):
        both = jnp.concatenate([before_B1D.astype(x_BTD.dtype), x_BTD], 1)
        return context.own(both[:, :-1], 1, ctx), precise(both[:, -1:])

    shape = (x_BTD.shape[0], 1, x_BTD.shape[2])
    return context.carry(module, "before", shape, x_BTD.dtype, ctx, made)


def conv_flops(width: int, channels: int) -> int:
    """A token's, of a short convolution."""
    return 2 * width * channels


def conv_state(width: int, channels: int) -> int:
    """Numbers that a decoder keeps of a short convolution."""
    return max(0, width - 1) * channels


class HeadNorm(nn.Module):
    """x / rms(x) over the last axis, or over each of `groups` parts of it, times a scale where
    asked for (Zhang & Sennrich 2019, arXiv 1910.07467).
    """

    eps: float = 1e-5
    scaled: bool = True
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        wide = precise(x).reshape(*x.shape[:-1], self.groups, -1)
        wide *= jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + self.eps)
        wide = wide.reshape(x.shape)
        if self.scaled:
            scale = declare(self, "scale", x.shape[-1:], ("act_embed",), mean=1.0)
            wide = weighted(wide, jnp.broadcast_to(scale, x.shape[2:]))
        return wide.astype(x.dtype)


def silu(x):
    """In float32 at least."""
    return jax.nn.silu(precise(x)).astype(x.dtype)
