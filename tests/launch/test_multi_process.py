"""Processes that train together: found, joined, agreed; and ended by one line where they are
not.
"""

import os
import socket
import subprocess
import sys

import pytest

from launch.config import ConfigError
from launch.devices import multi_process

SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "gpu[07-12,20],x1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
}
SKYPILOT = {
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NUM_NODES": "2",
}
KUBERNETES = {
    "JOB_COMPLETION_INDEX": "3",
    "NUM_PROCESSES": "4",
    "POD_FQDN": "run-a-3.svc.space.svc.cluster.local",
}


@pytest.mark.parametrize(
    "variables,want",
    [
        (SLURM, ("gpu07:63827", 4, 2, None)),
        (SLURM | {"SLURM_STEP_NODELIST": "n1,n2"}, ("n1:63827", 4, 2, None)),
        (SLURM | {"SLURM_STEP_ID": "1", "SLURM_STEP_NODELIST": "n1"}, ("n1:63828", 4, 2, None)),
        (
            SLURM
            | {
                "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
                "SLURM_LOCALID": "1",
                "CUDA_VISIBLE_DEVICES": "0,1",
            },
            ("gpu07:63827", 4, 2, 1),
        ),
        (
            SLURM
            | {
                "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
                "SLURM_LOCALID": "1",
                "CUDA_VISIBLE_DEVICES": "1",
            },
            ("gpu07:63827", 4, 2, None),
        ),
        (SKYPILOT, ("10.0.0.1:8476", 2, 1, None)),
        (KUBERNETES, ("run-a-0.svc.space.svc.cluster.local:8476", 4, 3, None)),
        (KUBERNETES | {"JAX_COORDINATOR_ADDRESS": "head:99"}, ("head:99", 4, 3, None)),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, ("a:8476", 2, 1, None)),
    ],
)
def test_clusters_are_found(variables, want):
    assert multi_process.detect(variables)[:4] == want


@pytest.mark.parametrize(
    "variables",
    [
        {},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"},  # a batch script, not srun
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        SKYPILOT | {"SKYPILOT_NUM_NODES": "1"},
        {"JOB_COMPLETION_INDEX": "3"},  # an indexed job of runs on their own
    ],
)
def test_no_cluster_is_one_process(variables):
    assert multi_process.detect(variables) is None and multi_process.flags("", 1, 0) is None


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("", 2, 0), "need --coordinator"),
        (("node1", 2, 0), "HOST:PORT"),
        (("node1:x", 2, 0), "HOST:PORT"),
        (("node1:99", 2, 2), "must lie in 0 .. 1"),
        (("node1:99", 2, -1), "must lie in 0 .. 1"),
    ],
)
def test_bad_flags(arguments, words):
    with pytest.raises(ConfigError, match=words):
        multi_process.flags(*arguments)
    with pytest.raises(ConfigError, match="variables of slurm are damaged"):
        multi_process.detect(SLURM | {"SLURM_PROCID": "x"})


def pair(tmp_path, *more, before=""):
    """Exit statuses and last lines of two processes with a flag each of their own."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = [
        "train",
        "--config=tiny_dense",
        f"--workdir={tmp_path}/r",
        f"--coordinator=127.0.0.1:{port}",
        "--processes=2",
    ]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    code = (
        f"import sys; from launch.devices import multi_process; {before or 'pass'};"
        " from experiments import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *common, f"--process_id={i}", *own],
            env=environment,
            text=True,
            stderr=subprocess.PIPE,
        )
        for i, own in enumerate(more)
        if own is not None
    ]
    said = [p.communicate(timeout=60)[1].splitlines() for p in started]
    assert not (tmp_path / "r").exists() or not os.listdir(tmp_path / "r")
    return [p.returncode for p in started], [lines[-1] for lines in said]


@pytest.mark.parametrize(
    "first,second,words",
    [
        (["--mesh=data=2", "--set=seed=1"], ["--mesh=data=2"], "process 1 has the run = "),
        (
            ["--mesh=data=2"],
            ["--mesh=data=2", "--set=model.d_modle=3"],
            "process 1 of 2: no field 'model.d_modle': did you mean",
        ),
        (["--mesh=data=2,fsdp=2"], ["--mesh=data=2,tensor=2"], "process 1 has a mesh = "),
        (
            ["--mesh=data=3"],
            ["--mesh=data=3"],
            "process 0 of 2: the mesh of 3 devices is not divided by 2 processes",
        ),
    ],
)
def test_processes_that_disagree_all_end(first, second, words, tmp_path):
    """Before anything compiles or is written, with the same line and status 2."""
    status, said = pair(tmp_path, first, second)
    assert status == [2, 2] and said[0] == said[1] and words in said[0], said


def test_nobody_waits_for_ever(tmp_path):
    status, said = pair(tmp_path, ["--mesh=data=2"], None, before="multi_process.TIMEOUT_S = 2")
    assert status == [2] and "waited 2 s" in said[0] and "for all 2 processes" in said[0]


def test_commits_that_differ_are_named(tmp_path):
    status, said = pair(
        tmp_path,
        ["--mesh=data=2"],
        ["--mesh=data=2"],
        before="from launch.runs import record; record.commit = lambda: sys.argv[6][-1]",
    )
    assert status == [2, 2] and "process 1 has the commit = 1, process 0 has 0" in said[0], said
