"""Executed FLOPs against a walk over the traced program: every shape as it stands. Other executions
of these shapes: test_counts_of_executions.py.
"""

from fractions import Fraction

import pytest

from model import account
from model.mlps import expert_loop, expert_rows
from tests.model import walk
from tests.model.test_counts import EXECUTIONS, QUICK, SHAPES, make, model


def executions(plain: bool, experts: bool | None = None):
    """Every shape as it stands, or every other execution: a few of these, the rest among the slow
    tests. experts: only shapes with them, or only those without.
    """
    for name, change in SHAPES.items():
        c = make(**change)
        if experts is not None and bool(c.routed) != experts:
            continue
        for how, ex in EXECUTIONS.items():
            fits = (c.routed or ex.moe == "block" and ex.moe_groups == 1) and (
                ex.moe != "capacity" or all(p.capacity_factor for p in c.routed)
            )
            # the walk takes one number of turns for all loops
            fits = fits and (ex.moe != "loop" or len(set(c.routed)) == 1)
            quick = plain or how in QUICK.get(name, ()) or name == "capacity" and "scan" not in how
            if fits and (how == "plain") == plain:
                yield pytest.param(
                    name, how, id=f"{name}-{how}", marks=() if quick else pytest.mark.slow
                )


def walked(name: str, how: str) -> None:
    """Forward and training, to the last FLOP: padding, masked pairs, copies of weights,
    recomputation; of a loop over as many blocks as the routing wants, the most that it can want.
    """
    walk_over(model(name), EXECUTIONS[how])


def walk_over(c, ex) -> None:
    counted, turns = account.work(c, ex, 4), None
    if (
        ex.moe == "loop"
    ):  # one of E experts over blocks of each width: each as often as makes all rows
        narrow, p = expert_loop.narrow(ex.moe_rows), c.routed[0]
        rows = expert_rows.blocks(4 * c.seq_len * p.top_k, p.n_experts, narrow) * narrow
        turns = Fraction(rows, p.n_experts * sum(expert_loop.widths(ex.moe_rows, rows)))
    assert walk.flops(walk.forward(c, ex, 4), turns=turns) == counted.forward
    assert (
        walk.flops(walk.training(c, ex, 4), turns=turns)
        == counted.training(ex.remat)
        == account.executed_flops(c, ex, 4)
    )


@pytest.mark.parametrize("name,how", [*executions(plain=True)])
def test_executed_flops_equal_the_walk(name, how):
    walked(name, how)
