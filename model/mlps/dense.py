"""The dense MLP: act(x W_in) W_out, or the gated (act(x W_gate) * x W_in) W_out (Shazeer 2020,
arXiv 2002.05202).
"""

import dataclasses
import functools

from flax import linen as nn

from model import config
from model.config import Execution, Model, choose
from model.mlps.hidden import ACTIVATIONS, activated, biases, inputs, kept, matrices
from model.params import Einsum
from model.state import State
from model.work import Work, matmuls, size


@dataclasses.dataclass(frozen=True)
class Dense:
    """Every token passes the same MLP."""

    d_ff: int = 0  # hidden width, F; 0: 4 x d_model
    activation: str = "gelu"  # of model/mlps/hidden.py
    bias: bool = False  # of both linear maps

    n_experts, unit = 0, 1  # no choice among experts; sequences are on their own
    apart = True

    def width(self, m: Model) -> int:
        return self.d_ff or 4 * m.d_model

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.dense")
        choose(ACTIVATIONS, self.activation, "model.dense.activation")

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mlp": self.active(m)}

    def active(self, m: Model) -> int:
        biased = biases(self.activation, self.width(m), m.d_model) if self.bias else 0
        return self.multiplied(m) + biased

    def multiplied(self, m: Model) -> int:
        return matrices(self.activation) * m.d_model * self.width(m)

    def router_flops(self, m: Model) -> int:
        return 0

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, width, count = batch * m.seq_len, self.width(m), matrices(self.activation)
        one, hidden = 2 * tokens * m.d_model * width, tokens * width * size(ex)
        return matmuls(count * one, one, kept(self.activation) * hidden, hidden)

    def state(self, m: Model) -> State:
        return State()

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("mlp", "model.dense.d_ff", self.width(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Dense(self, m, ex, name=name)


class _Dense(nn.Module):
    p: Dense
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, width = self.p, self.m, self.p.width(self.m)
        make = functools.partial(Einsum, dtype=self.ex.dtype, bias=p.bias)

        def up(name):
            return make("btd,df->btf", (m.d_model, width), ("embed", "mlp"), m.d_model, name=name)(
                x_BTD
            )

        act = ACTIVATIONS[p.activation][0]
        h_BTF = activated(act, {name: up(name) for name in inputs(p.activation)})
        gain = (2 * m.n_layers) ** -0.5
        shape, axes = (width, m.d_model), ("mlp", "embed")
        return make("btf,fd->btd", shape, axes, width, gain=gain, name="out")(h_BTF), {}
