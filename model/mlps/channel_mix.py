"""The channel mix of RWKV-4 (Peng et al. 2023, arXiv 2305.13048, section 3.1): sigmoid(x_r W_r)
(relu(x_k W_k)^2 W_v), where x_r and x_k are a share of a token and the rest of the one before,
which a decoder keeps.
"""

import dataclasses

import jax
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.recurrent import token_before
from model.numerics import precise
from model.params import Einsum, declare
from model.starts import Ramps
from model.state import State
from model.work import Work, matmuls, size


@dataclasses.dataclass(frozen=True)
class ChannelMix:
    """An MLP that sees the token before, with a gate of its own."""

    d_ff: int = 0  # hidden width, F; 0: 4 x d_model

    apart = True
    n_experts, unit = 0, 1  # no choice among experts; sequences are on their own

    def width(self, m: Model) -> int:
        return self.d_ff or 4 * m.d_model

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.channel_mix")

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mlp": self.active(m)}

    def active(self, m: Model) -> int:
        return self.multiplied(m) + 2 * m.d_model

    def multiplied(self, m: Model) -> int:
        return m.d_model * (2 * self.width(m) + m.d_model)

    def router_flops(self, m: Model) -> int:
        return 0

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        """The gate and the output are made side by side: either may be the last matmul, which alone
        is not made again.
        """
        tokens, width = batch * m.seq_len, self.width(m)
        kept = tokens * (3 * width + 5 * m.d_model) * size(ex)
        return matmuls(2 * tokens * self.multiplied(m), kept=kept)

    def state(self, m: Model) -> State:
        return State(per_sequence=m.d_model)

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("mlp", "model.channel_mix.d_ff", self.width(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _ChannelMix(self, m, ex, name=name)


class _ChannelMix(nn.Module):
    p: ChannelMix
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        m, d, width, dtype = self.m, self.m.d_model, self.p.width(self.m), self.ex.dtype
        ctx = ctx or context.plain(x_BTD.shape[1])
        shares = Ramps(((0.0, 1.0, 0.5), (0.0, 1.0, 0.5)))
        shift_pD = declare(self, "shift", (2, d), (None, "act_embed"), start=shares)
        before_BTD = token_before(self, x_BTD, ctx)

        def made_of(name, share_D, width, axis):
            x = precise(before_BTD) + share_D * (precise(x_BTD) - precise(before_BTD))
            return Einsum("btd,df->btf", (d, width), ("embed", axis), d, dtype=dtype,
                          name=name)(x.astype(dtype))  # fmt: skip

        gate_BTD = jax.nn.sigmoid(precise(made_of("r", shift_pD[0], d, None)))
        k_BTF = jax.nn.relu(precise(made_of("k", shift_pD[1], width, "mlp")))
        gain = (2 * m.n_layers) ** -0.5
        out = Einsum("btf,fd->btd", (width, d), ("mlp", "embed"), width, gain, dtype, name="out")
        y_BTD = out((k_BTF**2).astype(dtype))
        return (gate_BTD * precise(y_BTD)).astype(dtype), {}
