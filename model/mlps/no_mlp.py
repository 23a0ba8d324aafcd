"""No MLP: a layer of a mixer alone, as those of Mamba (Gu & Dao 2023, arXiv 2312.00752, section
3.4). The layer has no norm of an MLP either.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from model.config import Execution, Model
from model.state import State
from model.work import Work


@dataclasses.dataclass(frozen=True)
class NoMLP:
    """Nothing is added to what the mixer gives."""

    n_experts, unit = 0, 1  # no choice among experts; sequences are on their own
    apart = absent = transfers = True

    def check(self, m: Model) -> None:
        pass

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mlp": 0}

    def active(self, m: Model) -> int:
        return 0

    def multiplied(self, m: Model) -> int:
        return 0

    def router_flops(self, m: Model) -> int:
        return 0

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        return Work(0, 0, 0)

    def state(self, m: Model) -> State:
        return State()

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return []

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _NoMLP(name=name)


class _NoMLP(nn.Module):
    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        return jnp.zeros_like(x_BTD), {}
