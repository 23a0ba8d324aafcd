"""One order of a worker: a run taken to its result, or to the words that say why not."""

import contextlib
import dataclasses
import errno
import gc
import os
import sys
import time
import traceback
from collections.abc import Callable

FULL = (errno.ENOSPC, errno.EDQUOT)
LOOK = 1.0  # seconds between looks at a run that another trains


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
    from launch.runs import preempt, record, train, trunk

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
            return finished(train.train(run, where, folder, progress, tags, forks=forks))
        except preempt.Preempted:  # saved, and to be gone on with: no failure
            raise
        except Exception as e:
            error, smaller = "", None
            if choice.out_of_memory(e) and not elsewhere(e, folder):
                smaller = None if halved else _halved(run, where)
                error = (
                    "out of memory,"
                    f" {'at half the micro-batch too' if halved else 'and the micro-batch cannot be halved'}"  # noqa: E501
                    f" ({_words(e)})"
                )
            if smaller is None:
                return failed(e, folder, error)
            trace(e)
        if jax.process_count() > 1:
            record.fail(folder, error, halve=True)
            return {"kind": "halve", "error": error}
        where, halved = smaller, True
        print(
            f"isoflop: out of memory: again with where.accumulate={where.accumulate}",
            file=sys.stderr,
        )
        forget()  # outside the except: the error held the arrays


def finished(result: dict) -> dict:
    """What is said of a run that has a result."""
    return {
        "kind": "finished",
        "status": result["status"],
        "seconds": result["seconds"]["total"],
    }


def failed(e: Exception, folder: str, error: str = "") -> dict:
    """What is said of a run that `e` has stopped: that another has it, or that it failed, which is
    also written beside it. error: in other words.
    """
    from launch.runs import lease, record

    if isinstance(e, lease.Held):
        return {"kind": "elsewhere", "error": str(e)}
    trace(e)
    if elsewhere(e, folder):
        return {"kind": "elsewhere", "error": str(e)}
    if full := no_space(e):
        error = f"no space left on the disk of {folder}: make room, and the same command goes on"
    error = error or _words(e)
    with contextlib.suppress(OSError):
        record.fail(folder, error)
    return {"kind": "failed", "error": error, "full": full}


def elsewhere(e: Exception, folder: str) -> bool:
    """Whether another trains the run: whatever went wrong came of the overlap."""
    from launch.runs import lease

    return isinstance(e, lease.Held | lease.Lost) or _held_by_another(folder)


def trace(e: Exception) -> None:
    """The whole trace goes to the worker's log; on a full disk that is full as well."""
    with contextlib.suppress(OSError):
        traceback.print_exception(e)


def _words(e: Exception) -> str:
    return f"{type(e).__name__}: {str(e).splitlines()[0][:300] if str(e) else ''}"


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


def forget() -> None:
    """Frees what the failed attempt compiled and held."""
    import jax

    from launch.runs import program as programs

    programs.forget()
    jax.clear_caches()
    gc.collect()


def until_free(folder: str) -> None:
    """Waits while another trains the run."""
    from launch.runs import lease

    time.sleep(LOOK)
    while lease.living(folder):
        time.sleep(LOOK)


def serve_one(order: dict) -> dict:
    """One order on a cluster: waits while another trains it, for it may die. Returns the last
    message; exits with status 75 if told to stop or if all processes must start anew, with 1 where
    a failure would leave the other processes waiting.
    """
    import jax

    from launch.runs import preempt

    try:
        while (message := attempt(order))["kind"] == "elsewhere":
            until_free(order["folder"])
        if message["kind"] == "halve" or message["kind"] == "failed" and jax.process_count() > 1:
            os._exit(
                preempt.STATUS if message["kind"] == "halve" else 1
            )  # no goodbye: the others wait in a collective
        return message
    except preempt.Preempted as e:
        print(f"isoflop: {e}", file=sys.stderr, flush=True)
        sys.exit(preempt.STATUS)
