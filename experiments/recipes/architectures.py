"""Attention against other sequence mixers and a hybrid, each dense and with experts, at equal
counted FLOPs: gaps, exponents, compute multipliers, speed and decoding state.

The hybrid is gated delta and attention in turns: it fits the ladder's two layers, as
Qwen3-Next's four do not (`qwen3_next`). Every arm has the ladder's learning rate; the bracket in
one cell says whether that was near its best (docs/mixers.md).
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart

MIXERS = ("mamba2", "gated_delta", "rwkv7", "lstm")


def recipe() -> SweepJob:
    arms = {"attention": "attention/dense", "attention_moe": "attention/moe"}
    for name in MIXERS:
        arms |= {name: f"{name}/dense", f"{name}_moe": f"{name}/moe"}
    for suffix, mlp in (("", "dense"), ("_moe", "moe")):
        arms[f"hybrid{suffix}"] = f"gated_delta/{mlp}, attention/{mlp}"
    sweep = Sweep(
        name="architectures",
        sizes=(8, 12, 16, 24),
        budgets=(1e10, 2e10, 4e10),
        arms=tuple(arms.items()),
        match="flops",
        replicate_size=16,
        replicate_budget=2e10,
        replicate_seeds=(1, 2),
        bracket=(0.5, 2.0),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
