"""Runs that go on on other layouts, or that two processes want at once."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from launch import config
from launch.files import RecordError
from launch.runs import checkpoint, checks, lease, train
from launch.runs import program as programs
from tests.launch.stopped_runs import RUN, RUNS, WHERE, Stop, arrays, stop_at
from tests.launch.test_launch import lines


@pytest.mark.parametrize(
    "layouts",
    [
        ("data=2,fsdp=2,tensor=2", "fsdp=2,tensor=2", "data=1"),
        pytest.param(("data=1", "fsdp=4,tensor=2", "expert=2,data=2"), marks=pytest.mark.slow),
    ],
)
def test_elsewhere(layouts, tmp_path):
    """8 -> 4 -> 1 devices and back up: the state that is restored is the one that was saved, and
    the data goes on in order.
    """
    run, folder = RUNS["moe"], str(tmp_path / "r")
    for i, layout in enumerate(layouts):
        where = dataclasses.replace(WHERE, mesh=layout, log_every=1)
        if i:
            p = programs.program(checks.resolve(run, "cpu"), where)
            with (
                jax.set_mesh(p.layout.mesh),
                checkpoint.Checkpoints(folder, "", config.Where()) as c,
            ):
                state, meta = c.restore(4 * i, p.layout.state, p.layout.shardings)
            found = {
                jax.tree_util.keystr(k): np.asarray(v)
                for k, v in jax.tree_util.tree_leaves_with_path(state)
            }
            saved = arrays(folder, 4 * i)
            assert meta["step"] == 4 * i and len(found) == len(saved)

            def key(k):
                return k.replace(".", "").replace("[", "").replace("]", "").replace("'", "")

            saved = {key(k): v for k, v in saved.items()}
            for k, v in found.items():
                assert np.array_equal(v, saved[key(k)]), k
        if i < 2:
            with pytest.raises(Stop):
                train.train(run, where, folder, stop_at(4 * i + 5))
        else:
            train.train(run, where, folder)
    alone = [m["loss"] for m in lines(tmp_path / "r")]
    train.train(run, dataclasses.replace(WHERE, log_every=1), str(tmp_path / "alone"))
    np.testing.assert_allclose(alone, [m["loss"] for m in lines(tmp_path / "alone")], rtol=1e-3)


def test_two_processes_in_one_folder(tmp_path):
    (tmp_path / "r").mkdir()
    with (
        lease.Lease(str(tmp_path / "r"), 60),
        pytest.raises(RecordError, match=f"in use by process {os.getpid()} on"),
    ):
        train.train(RUN, WHERE, str(tmp_path / "r"))
