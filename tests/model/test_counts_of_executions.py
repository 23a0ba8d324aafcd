"""Executed FLOPs against a walk over the traced program, as each execution states them."""

import pytest

from tests.model.test_executed_counts import executions, walked


@pytest.mark.parametrize("name,how", [*executions(plain=False, experts=False)])
def test_executed_flops_equal_the_walk(name, how):
    walked(name, how)
