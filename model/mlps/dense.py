"""The dense MLP: act(x W_in) W_out, or the gated (act(x W_gate) * x W_in) W_out (Shazeer 2020,
arXiv 2002.05202).
"""

import dataclasses
import functools

from flax import linen as nn

from model import config
from model.config import Execution, Model
from model.mlps import hidden
from model.mlps.hidden import Units, activated, biases, inputs, kept, matrices
from model.params import Einsum
from model.state import State
from model.work import Work, matmuls, size


@dataclasses.dataclass(frozen=True)
class Dense:
    """Every token passes the same MLP."""

    d_ff: int = 0  # hidden width, F; 0: 4 x d_model
    activation: str = "gelu"  # of model/mlps/hidden.py
    bias: bool = False  # of both linear maps
    # f(alpha x) / alpha in the place of the nonlinearity f(x): 1.702 of swiglu in gpt-oss
    alpha: float = 1.0
    # what the nonlinearity takes is at most limit, the branch that is not gated within +-limit;
    # 0: none
    limit: float = 0.0
    shift: float = 0.0  # is added to the branch that is not gated

    n_experts, unit = 0, 1  # no choice among experts; sequences are on their own
    apart = transfers = True

    def width(self, m: Model) -> int:
        return self.d_ff or 4 * m.d_model

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.dense")
        hidden.check(self, "dense")

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
        one, units = 2 * tokens * m.d_model * width, tokens * width * size(ex)
        return matmuls(count * one, one, kept(self.activation) * units, units)

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

        h_BTF = activated(Units.read(p), {name: up(name) for name in inputs(p.activation)})
        gain = (2 * m.n_layers) ** -0.5
        shape, axes = (width, m.d_model), ("mlp", "embed")
        return make("btf,fd->btd", shape, axes, width, gain=gain, name="out")(h_BTF), {}
