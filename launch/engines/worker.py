"""The process in which runs are trained, by themselves or as a pack.

python -m launch.engines.worker    orders from stdin, one JSON line each, answered on stdout (engine
                                   local); what ends a run is its folder's to say as well
"""

import functools
import json
import os
import queue
import signal
import sys
import threading
import time

from launch.engines import attempts, packing

HEARTBEAT = 1.0  # seconds


def order(task, where) -> dict:
    """A task and how to execute it, ready for JSON."""
    from launch import config

    return {
        "id": task.id,
        "run": config.to_dict(task.run),
        "where": config.to_dict(where),
        "folder": task.folder,
        "tags": task.tags,
        "forks": task.forks,
    }


def _die_with_parent() -> None:
    """A killed driver must not leave workers that train on: they would race the next one."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        sys.exit(1)


def begin(where, several: bool = False) -> None:
    """Devices and caches, before jax is first used. `several`: joins the processes that a cluster
    has started beside this one.
    """
    from launch.devices import mesh, multi_process
    from launch.runs import compiled

    sizes, place = mesh.parse(where.mesh), multi_process.detect(os.environ) if several else None
    if place:
        multi_process.join(place, sizes)
    else:
        mesh.simulate(sizes)
    compiled.use_cache(where.cache)


def serve_stdin() -> int:
    parent = os.getppid()
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to the log
    turn = threading.Lock()

    def send(**message):
        with turn:
            answers.write(json.dumps(message) + "\n")

    def beat():
        while True:
            time.sleep(HEARTBEAT)
            if os.getppid() != parent:
                os._exit(1)
            send(kind="alive")

    threading.Thread(target=beat, daemon=True).start()
    from launch import config
    from launch.runs import preempt

    said: dict[str, float] = {}

    def progress(identity, done, total):
        if time.monotonic() - said.get(identity, 0.0) > 0.2 or done == total:
            said[identity] = time.monotonic()
            send(kind="progress", id=identity, done=done, total=total)

    orders: queue.Queue = queue.Queue()

    def read():
        for line in sys.stdin:
            orders.put(json.loads(line))
        orders.put(None)

    threading.Thread(target=read, daemon=True).start()
    first = True
    while (todo := orders.get()) is not None:
        several = todo.get("orders") or [todo]
        if first:
            begin(config.from_dict(config.Where, several[0]["where"]))
            first = False
        try:
            serve(several, orders, send, progress)
        except preempt.Preempted as e:
            print(f"isoflop: {e}", file=sys.stderr)
            return preempt.STATUS
    return 0


def serve(several: list[dict], orders: queue.Queue, send, progress) -> None:
    """Orders that came together: each by itself, or as a pack, which others may join."""
    if several[0]["where"]["members"] > 1:
        return packing.serve(several, packing.waiting(orders), send, progress)
    for order in several:
        send(id=order["id"], **attempts.attempt(order, functools.partial(progress, order["id"])))
    return None


if __name__ == "__main__":
    sys.exit(serve_stdin())
