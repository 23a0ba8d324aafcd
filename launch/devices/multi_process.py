"""Several processes that train together: found in the variables of a cluster or given by flags,
joined, and agreed before they start.

Slurm        srun sets the step's tasks; the first host of the step coordinates
SkyPilot     SKYPILOT_NODE_IPS, _NODE_RANK, _NUM_NODES: one process per node
Kubernetes
    an Indexed Job behind a headless service sets JOB_COMPLETION_INDEX; its manifest sets
    NUM_PROCESSES
TPU slices   TPU_WORKER_HOSTNAMES and TPU_WORKER_ID: one process per host
"""

import contextlib
import json
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from launch.config import ConfigError

PORT = 8476
TIMEOUT_S = 300  # for the others to come, and to say what they are about to run


class Place(NamedTuple):
    """Of this process among those that train together. coordinator: HOST:PORT of process 0. device:
    the one accelerator of this host that is its own, None for all of them.
    """

    coordinator: str
    processes: int
    process: int
    device: int | None
    source: str


def flags(coordinator: str, processes: int, process: int) -> Place | None:
    """What the flags say; None if they say nothing. Raises ConfigError."""
    if not coordinator:
        if processes > 1:
            raise ConfigError(
                f"--processes={processes} need --coordinator=HOST:PORT: the address of process 0,"
                " the same in all of them"
            )
        return None
    host, colon, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--coordinator={coordinator}: give HOST:PORT, such as node1:{PORT}")
    if not 0 <= process < processes:
        raise ConfigError(
            f"--process_id={process} must lie in 0 .. {processes - 1}: --processes says how many"
            " there are"
        )
    return Place(coordinator, processes, process, None, "flags")


def _first_host(nodes: str) -> str:
    """The first host of Slurm's list: node1 | node1,node2 | node[07-12,20],x."""
    head, bracket, rest = nodes.partition(",")[0].partition("[")
    return head + rest.rstrip("]").partition("-")[0] if bracket else head


def _slurm(e: Mapping) -> Place | None:
    if not {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"} <= set(
        e
    ):
        return None
    port = (
        61440 + (31 * int(e["SLURM_JOB_ID"]) + int(e.get("SLURM_STEP_ID", 0))) % 4096
    )  # jobs and steps of one host keep apart
    several = e.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0].split(",")[0] != "1"
    shared = e.get("CUDA_VISIBLE_DEVICES", "").count(",") > 0
    device = int(e["SLURM_LOCALID"]) if several and shared else None
    host = _first_host(e["SLURM_STEP_NODELIST"])
    return Place(
        f"{host}:{port}", int(e["SLURM_STEP_NUM_TASKS"]), int(e["SLURM_PROCID"]), device, "Slurm"
    )


def _skypilot(e: Mapping) -> Place | None:
    if not {"SKYPILOT_NODE_IPS", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"} <= set(e):
        return None
    first = e["SKYPILOT_NODE_IPS"].split()[0]
    return Place(
        f"{first}:{PORT}",
        int(e["SKYPILOT_NUM_NODES"]),
        int(e["SKYPILOT_NODE_RANK"]),
        None,
        "SkyPilot",
    )


def _kubernetes(e: Mapping) -> Place | None:
    if not {"JOB_COMPLETION_INDEX", "NUM_PROCESSES"} <= set(e):
        return None
    index = int(e["JOB_COMPLETION_INDEX"])
    pod, dot, service = (e.get("POD_FQDN") or socket.getfqdn()).partition(".")
    first = pod.removesuffix(f"-{index}") + "-0" + dot + service
    return Place(
        e.get("JAX_COORDINATOR_ADDRESS") or f"{first}:{PORT}",
        int(e["NUM_PROCESSES"]),
        index,
        None,
        "Kubernetes",
    )


def _tpu(e: Mapping) -> Place | None:
    hosts = [h for h in e.get("TPU_WORKER_HOSTNAMES", "").split(",") if h]
    return (
        Place(f"{hosts[0]}:{PORT}", len(hosts), int(e["TPU_WORKER_ID"]), None, "TPU slice")
        if hosts and "TPU_WORKER_ID" in e
        else None
    )


DETECTORS = (_slurm, _skypilot, _kubernetes, _tpu)


def detect(environment: Mapping) -> Place | None:
    """The place that a cluster's variables give this process; None for a process on its own. Raises
    ConfigError.
    """
    for detector in DETECTORS:
        try:
            place = detector(environment)
        except (ValueError, IndexError, KeyError) as error:
            raise ConfigError(
                f"the variables of{detector.__name__.replace('_', ' ')} are damaged ({error}): give"
                " --coordinator"
            ) from None
        if place and place.processes > 1:
            return place
    return None


def join(place: Place, sizes: dict[str, int]) -> None:
    """Makes this process one of those that train together, through jax.distributed. Before jax is
    first used; raises ConfigError.
    """
    devices = math.prod(sizes.values())
    if sizes and devices % place.processes == 0:
        with contextlib.suppress(
            RuntimeError
        ):  # a CPU stands for its share of the mesh; without effect on accelerators
            jax.config.update("jax_num_cpu_devices", devices // place.processes)
    own = None if place.device is None else [place.device]
    # where somebody does not come, jax aborts with a stack trace: this is before it
    waiting = threading.Timer(TIMEOUT_S, _give_up, [place])
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.processes,
            place.process,
            own,
            initialization_timeout=TIMEOUT_S + 60,
        )
    finally:
        waiting.cancel()


def _give_up(place: Place) -> None:
    print(
        f"isoflop: process {place.process} waited {TIMEOUT_S} s at {place.coordinator} for all"
        f" {place.processes} processes to come: see what stopped the others, or whether the address"
        " can be reached",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def _agree(place: Place, topic: str, failure: Exception | None, same: dict) -> None:
    """Tells all processes of this one's failure and of what must be equal; raises in all of them if
    one failed or differs.
    """
    from jax._src import distributed  # the store that jax.distributed keeps has no public name

    store = distributed.global_state.client
    store.key_value_set(
        f"isoflop/{topic}/{place.process}", json.dumps([str(failure) if failure else "", same])
    )
    said = [
        json.loads(store.blocking_key_value_get(f"isoflop/{topic}/{i}", 1000 * TIMEOUT_S))
        for i in range(place.processes)
    ]
    if failure and not isinstance(failure, ValueError):
        raise failure  # no mistake of the user: with its traceback
    for i, (error, _) in enumerate(said):
        if error:
            raise ConfigError(f"process {i} of {place.processes}: {error}")
    for i, (_, theirs) in enumerate(said):
        for name, want in said[0][1].items():
            if theirs.get(name) != want:
                raise ConfigError(
                    f"process {i} has {name} = {theirs.get(name)}, process 0 has {want}: start all"
                    " of them alike"
                )


def together(place: Place, prepare: Callable, check: Callable):
    """`check(prepare())` of a process among several. `prepare` reads the configuration, before jax
    is used, and returns (value, sizes of the mesh); `check(value)` returns (value, what must be
    equal everywhere, by name). If any process fails in either or differs from process 0, every one
    of them raises ConfigError with the same words, before anything compiles.
    """
    failure, value, sizes, same = None, None, {}, {}
    try:
        value, sizes = prepare()
        if math.prod(sizes.values()) % place.processes:
            raise ConfigError(
                f"the mesh of {math.prod(sizes.values())} devices is not divided by"
                f" {place.processes} processes: give another --mesh"
            )
    except Exception as e:
        failure = e
    join(place, sizes)
    _agree(
        place, "configuration", failure, {"a mesh": sizes}
    )  # devices come up together or not at all
    try:
        value, same = check(value)
    except Exception as e:
        failure = e
    _agree(place, "run", failure, same)
    return value
