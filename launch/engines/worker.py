"""Where runs are trained, whatever the engine: one order at a time, its end said by the run's
folder and to who asked.

python -m launch.engines.worker                    orders from stdin, one JSON line each, answered
                                                   on stdout (engine local)
python -m launch.engines.worker ORDERS.json WORKDIR all orders of a file that are not finished or
held by others (skypilot)
"""

import contextlib
import dataclasses
import errno
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

HEARTBEAT = 1.0  # seconds
FULL = (errno.ENOSPC, errno.EDQUOT)
LOOK = 1.0  # seconds between looks at a run that another trains


def order(task, where) -> dict:
    """A task and how to execute it, ready for JSON."""
    from launch import config

    return {
        "run": config.to_dict(task.run),
        "where": config.to_dict(where),
        "folder": task.folder,
        "tags": task.tags,
        "forks": task.forks,
    }


def attempt(order: dict, progress: Callable[[int, int], None] = lambda done, total: None) -> dict:
    """Trains one order; where memory runs out, once more with twice the micro-batches, each half as
    large. Returns {"kind": finished | elsewhere | failed | halve, ...}; a failure is also written
    beside the run, for whoever looks later. Raises Preempted.

    halve: one of several processes ran out; all of them must start anew, and will read in the
    folder that they take half.
    """
    import jax

    from launch import config
    from launch.devices import choice
    from launch.runs import lease, preempt, record, train, trunk

    run, where = (
        config.from_dict(config.Run, order["run"]),
        config.from_dict(config.Where, order["where"]),
    )
    folder, tags, halved = order["folder"], order["tags"], False
    forks = trunk.read(order.get("forks"))
    if record.to_be_halved(folder):
        where, halved = _halved(run, where) or where, True
    while True:
        try:
            result = train.train(run, where, folder, progress, tags, forks=forks)
            return {
                "kind": "finished",
                "id": result["id"],
                "status": result["status"],
                "seconds": result["seconds"]["total"],
            }
        except lease.Held as e:
            return {"kind": "elsewhere", "error": str(e)}
        except preempt.Preempted:  # saved, and to be gone on with: no failure
            raise
        except Exception as e:  # the whole trace goes to the worker's log
            with contextlib.suppress(OSError):  # on a full disk the log is full as well
                traceback.print_exc()
            if isinstance(e, lease.Lost) or _held_by_another(
                folder
            ):  # whatever went wrong came of the overlap
                return {"kind": "elsewhere", "error": str(e)}
            error, smaller = (
                f"{type(e).__name__}: {str(e).splitlines()[0][:300] if str(e) else ''}",
                None,
            )
            if full := no_space(e):
                error = (
                    f"no space left on the disk of {folder}: make room, and the same command"
                    " goes on"
                )
            elif choice.out_of_memory(e):
                smaller = None if halved else _halved(run, where)
                error = (
                    "out of memory,"
                    f" {'at half the micro-batch too' if halved else 'and the micro-batch cannot be halved'}"  # noqa: E501
                    f" ({error})"
                )
        if smaller is None:
            with contextlib.suppress(OSError):
                record.fail(folder, error)
            return {"kind": "failed", "error": error, "full": full}
        if jax.process_count() > 1:
            record.fail(folder, error, halve=True)
            return {"kind": "halve", "error": error}
        where, halved = smaller, True
        print(
            f"isoflop: out of memory: again with where.accumulate={where.accumulate}",
            file=sys.stderr,
        )
        _forget()  # outside the except: the error held the arrays


def _halved(run, where):
    """`where` with twice the micro-batches a step that were executed, which may be more than were
    asked for, or the next number that can be divided so; None if there is none.
    """
    from launch.config import ConfigError
    from launch.runs import checks
    from launch.runs import program as programs

    executed = programs.execution(run, where).accumulate
    for accumulate in range(2 * executed, run.batch + 1):
        if run.batch % accumulate:
            continue
        smaller = dataclasses.replace(where, accumulate=accumulate)
        try:
            checks.check(run, smaller)
        except ConfigError:
            continue
        if programs.execution(run, smaller).accumulate > executed:
            return smaller
    return None


def _held_by_another(folder: str) -> bool:
    from launch.runs import lease

    found = lease.living(folder)
    return found is not None and (found.pid, found.host) != (os.getpid(), os.uname().nodename)


def no_space(e: BaseException | None) -> bool:
    """Whether a full disk, or a full quota, is behind the error."""
    while e is not None:
        if getattr(e, "errno", None) in FULL or any(os.strerror(n) in str(e) for n in FULL):
            return True
        e = e.__cause__ or e.__context__
    return False


def _forget() -> None:
    """Frees what the failed attempt compiled and held."""
    import jax

    from launch.runs import program as programs

    programs.forget()
    jax.clear_caches()
    gc.collect()


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


def serve_one(order: dict) -> dict:
    """One order on a cluster: waits while another trains it, for it may die. Returns the last
    message; exits with status 75 if told to stop or if all processes must start anew, with 1 where
    a failure would leave the other processes waiting.
    """
    import jax

    from launch.runs import lease, preempt

    try:
        while (message := attempt(order))["kind"] == "elsewhere":
            time.sleep(LOOK)
            while lease.living(order["folder"]):
                time.sleep(LOOK)
        if message["kind"] == "halve" or message["kind"] == "failed" and jax.process_count() > 1:
            os._exit(
                preempt.STATUS if message["kind"] == "halve" else 1
            )  # no goodbye: the others wait in a collective
        return message
    except preempt.Preempted as e:
        print(f"isoflop: {e}", file=sys.stderr, flush=True)
        sys.exit(preempt.STATUS)


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

    last = 0.0

    def progress(done, total):
        nonlocal last
        if time.monotonic() - last > 0.2 or done == total:
            last = time.monotonic()
            send(kind="progress", done=done, total=total)

    first = True
    for line in sys.stdin:
        todo = json.loads(line)
        if first:
            begin(config.from_dict(config.Where, todo["where"]))
            first = False
        try:
            send(**attempt(todo, progress))
        except preempt.Preempted as e:
            print(f"isoflop: {e}", file=sys.stderr)
            return preempt.STATUS
    return 0


if __name__ == "__main__":
    sys.exit(serve_stdin())
