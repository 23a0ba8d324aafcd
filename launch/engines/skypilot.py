"""Runs as one managed job of SkyPilot: GPU nodes or TPU slices, spot with recovery, results on a
bucket that every node mounts.

Writes the task, calls the `sky` command where it is installed, and is done: the runs are handed
over. Nothing here imports SkyPilot.

    WORKDIR/skypilot/orders.json    what the nodes train; SkyPilot copies it to them
    WORKDIR/skypilot/task.yaml      sky jobs launch WORKDIR/skypilot/task.yaml

On the nodes the bucket's folder is a workdir like any other (`isoflop status` reads it wherever the
bucket is mounted). A bucket knows neither links nor atomic renames of folders: files come first,
one marker comes last (result.json of a run, complete.json of a checkpoint), and a folder without
its marker does not exist. Uploads go one at a time, so that they keep this order.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

from launch import config, files
from launch.config import ConfigError, Where
from launch.devices import child_process, mesh
from launch.engines import SWEEP, Place, Task, attempts, folder, worker
from launch.runs import preempt, trunk

MOUNT, ORDERS = "/isoflop", "/tmp/isoflop-orders.json"  # on the nodes
STORES = ("s3", "gs", "r2", "cos", "oci", "nebius", "https")


def place(where: Where, runs: int) -> Place:
    """Raises ConfigError for a `where.sky` that no task can be written for."""
    s = where.sky
    if not re.fullmatch(rf"({'|'.join(STORES)})://[\w./-]+", s.bucket):
        raise ConfigError(
            f"where.sky.bucket={s.bucket!r}: name the bucket that holds the workdirs, such as"
            " s3://mine or gs://mine"
        )
    if s.accelerators and not re.fullmatch(r"[\w.-]+(:\d+)?", s.accelerators):
        raise ConfigError(
            f"where.sky.accelerators={s.accelerators!r}: write them as H100:8 or tpu-v5litepod-16;"
            " empty for CPUs"
        )
    if s.nodes < 1:
        raise ConfigError(f"where.sky.nodes={s.nodes} must be at least 1")
    if where.members > 1 and s.together:
        raise ConfigError(
            f"where.members={where.members} trains runs together in one process: leave"
            " where.sky.together=false"
        )
    if s.launch and not shutil.which("sky"):
        raise ConfigError(
            "where.engine=skypilot: no sky command on this machine; pip install skypilot, or --set"
            " where.sky.launch=false to write the task alone"
        )
    name, _, count = s.accelerators.partition(":")
    platform = "cpu" if not name else "tpu" if name.startswith("tpu") else "gpu"
    each = _chips(name) if platform == "tpu" else int(count or 1)
    devices = each * s.nodes if s.together else each if platform == "tpu" else 1
    return Place(
        platform,
        mesh.devices(where.mesh) or devices,
        1 if s.together else s.nodes * (each if platform == "gpu" else 1),
    )


def _chips(name: str) -> int:
    """jax devices of a TPU slice: v4 and v5p are named by cores, two a device."""
    n = name.rpartition("-")[2]
    if not n.isdigit():
        raise ConfigError(
            f"where.sky.accelerators={name!r}: say how large the slice is, such as tpu-v5litepod-16"
        )
    return max(1, int(n) // 2) if name.startswith(("tpu-v4-", "tpu-v5p-")) else int(n)


def task(name: str, where: Where, orders: str) -> dict:
    """The task as SkyPilot's YAML says it."""
    s = where.sky
    extra = {"gpu": "[cuda]", "tpu": "[tpu]", "cpu": ""}[place(where, 1).platform]
    resources = {"accelerators": s.accelerators} if s.accelerators else {"cpus": "4+"}
    if s.infra:
        resources["infra"] = s.infra
    resources |= {
        "use_spot": s.spot,
        # 75: told to stop and saved; an error that is ours is not mended by another node
        "job_recovery": {
            "strategy": "EAGER_NEXT_REGION",
            "max_restarts_on_errors": 0,
            "recover_on_exit_codes": [preempt.STATUS],
        },
    }
    cached = {"transfers": 1, "vfs_write_back": "1s"}
    return {
        "name": f"isoflop-{name}",
        "workdir": child_process.ROOT,
        "num_nodes": s.nodes,
        "resources": resources,
        "file_mounts": {
            MOUNT: {"source": s.bucket, "mode": "MOUNT_CACHED", "config": {"mount_cached": cached}},
            ORDERS: orders,
        },
        "setup": f'python3 -m venv .venv && .venv/bin/pip install -q -e ".{extra}"',
        "run": f".venv/bin/python -P -m launch.engines.skypilot {ORDERS} {MOUNT}/{name}",
    }


def yaml(value: dict, indent: int = 0) -> str:
    """`value` as block YAML, whose scalars are JSON, which YAML contains."""
    lines = []
    for k, v in value.items():
        pad = "  " * indent
        lines += (
            [f"{pad}{k}:", yaml(v, indent + 1)]
            if isinstance(v, dict)
            else [f"{pad}{k}: {json.dumps(v)}"]
        )
    return "\n".join(lines)


def submit(tasks: list[Task], where: Where, workdir: str, report: Callable[..., None]) -> dict:
    """Writes the task and launches it. Raises RecordError if `sky` refuses."""
    name = re.sub(r"[^a-z0-9-]+", "-", os.path.basename(workdir).lower()).strip("-") or "sweep"
    root = os.path.join(workdir, "skypilot")
    os.makedirs(root, exist_ok=True)
    orders, path = os.path.join(root, "orders.json"), os.path.join(root, "task.yaml")
    there = dataclasses.replace(where, engine="local", cache="")
    # who trains all of them in this order finds every fork that a run may begin at
    listed = sorted(tasks, key=lambda t: (len(t.forks or ()), -t.cost))
    sweep = os.path.join(workdir, SWEEP)
    about = files.read_json(sweep, "sweep") if os.path.exists(sweep) else None
    files.write_json(
        orders,
        {
            "sweep": about,
            "together": where.sky.together,
            "orders": [worker.order(t, there) | {"id": t.id, "cost": t.cost} for t in listed],
        },
    )
    files.write_text(path, yaml(task(name, where, orders)) + "\n")
    command = ["sky", "jobs", "launch", "--yes", "--detach-run", path]
    if not where.sky.launch:
        print(f"isoflop: wrote {path}; launch it with: {' '.join(command)}", file=sys.stderr)
        return {}
    answer = subprocess.run(command, check=False, stdout=2)  # stdout is for the answer
    if answer.returncode:
        raise files.RecordError(
            f"{' '.join(command)} ended with status {answer.returncode}: its own words stand above"
        )
    return {}


def main(orders: str, workdir: str) -> int:
    """What a node runs. Nodes share the runs, each with a worker per GPU, through the leases in
    `workdir`; or they train each together.
    """
    from launch import engines

    listed = files.read_json(orders, "orders")
    os.makedirs(workdir, exist_ok=True)
    if listed["sweep"]:
        files.write_once(os.path.join(workdir, SWEEP), json.dumps(listed["sweep"]) + "\n")
    todo = [dict(o, folder=folder(workdir, o["id"])) for o in listed["orders"]]
    where = config.from_dict(Where, todo[0]["where"])
    try:
        if listed["together"]:
            worker.begin(where, several=True)
            said = [attempts.serve_one(o) for o in todo]
            failures = [
                f"run {o['id']}: {m['error']}"
                for o, m in zip(todo, said, strict=True)
                if m["kind"] == "failed"
            ]
        else:
            runs = [(config.from_dict(config.Run, o["run"]), o) for o in todo]
            tasks = [
                Task(
                    *(r, o["folder"], o["tags"], (r.model, r.batch, r.dtype), o["cost"]),
                    trunk.read(o.get("forks")),
                )
                for r, o in runs
            ]
            with preempt.raised():
                failures = engines.submit(tasks, where, workdir)
    except preempt.Preempted as e:
        print(f"isoflop: {e}", file=sys.stderr)
        return preempt.STATUS
    for line in failures:
        print(f"isoflop: {line}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
