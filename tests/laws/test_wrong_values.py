"""Every field of a record by thirteen wrong values: named, or borne."""

import contextlib
import copy

import pytest

from experiments.verbs import common
from launch.files import RecordError
from launch.runs import valid
from tests.laws.made_up_records import MARKUP, calls, result, write


def leaves(value, path=()):
    for k, v in value.items():
        if isinstance(v, dict) and v:
            yield from leaves(v, (*path, k))
        yield (*path, k)


HOSTILE = [
    "1e9",
    MARKUP,
    None,
    [],
    {},
    [[1]],
    True,
    -1,
    0,
    1e300,
    float("nan"),
    float("inf"),
    "x" * 20_000,
]


@pytest.mark.parametrize("path", list(leaves(result(0))), ids=".".join)
def test_wrong_values_are_named_or_borne(path, tmp_path):
    """Every field of a record by every kind of wrong value: it is said to be damaged, or the
    analysis bears it.
    """
    from experiments.laws import sweep_analysis

    for value in HOSTILE:
        rows = [result(i) for i in range(6)]
        r = rows[0]
        at = r
        for k in path[:-1]:
            at = at[k]
        at[path[-1]] = copy.deepcopy(value)
        if valid.flaw(r) is None:
            with contextlib.suppress(RecordError), common.complete():
                sweep_analysis.analyse(rows, "multiplied", "matmul", 20)


@pytest.mark.slow
def test_wrong_values_reach_no_page(tmp_path, capsys):
    """The same through `report`, one field in six. About three minutes."""
    for path in list(leaves(result(0)))[::6]:
        for i, value in enumerate(HOSTILE[:10]):
            rows = [result(k) for k in range(6)]
            at = rows[0]
            for k in path[:-1]:
                at = at[k]
            at[path[-1]] = value
            rows[0]["id"] = f"{0:012x}"
            calls(write(tmp_path / f"{'.'.join(path)}{i}", rows), capsys, ["report"])
