"""Runs that are stopped, and in what two finished ones differ."""

import dataclasses
import os

import jax
import numpy as np

from launch.runs import checkpoint, record
from model.optim import Schedule
from tests.launch.test_launch import ALONE, BASE, MOE, lines

WHERE = dataclasses.replace(
    ALONE, log_every=3, checkpoint_every=4, steps_per_dispatch=2
)  # a line straddles every checkpoint


RUN = dataclasses.replace(BASE, schedule=Schedule(warmup=0.3))


RUNS = {
    "dense": RUN,
    "moe": dataclasses.replace(RUN, model=MOE),
    "averaged": dataclasses.replace(RUN, average="ema(0.9)"),
}


class Stop(Exception):
    pass


def stop_at(n):
    def progress(done, total):
        if done >= n:
            raise Stop

    return progress


def arrays(folder, number=None):
    """{path: array} of a checkpoint, by default the newest."""
    import orbax.checkpoint as ocp

    number = number or checkpoint.steps(str(folder))[-1]
    with ocp.StandardCheckpointer() as c:
        tree = c.restore(
            os.path.abspath(os.path.join(folder, checkpoint.FOLDER, str(number), "state"))
        )
    return {
        jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)
    }


def differences(a, b) -> list[str]:
    """In what two finished run folders differ, clocks left out."""
    out = []
    x, y = arrays(a), arrays(b)
    out += [
        k for k in x.keys() | y.keys() if k not in x or k not in y or not np.array_equal(x[k], y[k])
    ]

    def drop(m):
        return {k: v for k, v in m.items() if k not in ("tokens_per_s", "waited_s")}

    if [drop(m) for m in lines(a)] != [drop(m) for m in lines(b)]:
        out.append("metrics.jsonl")
    x, y = record.result(str(a)), record.result(str(b))
    out += [
        k
        for k in x
        if k
        not in (
            "seconds",
            "cpu_seconds",
            "energy",
            "tokens_per_s",
            "members",
            "mfu_matmul",
            "where",
            "device",
            "commit",
        )
        and x[k] != y[k]
    ]
    return out
