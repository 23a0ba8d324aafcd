"""A worker process: trains the tasks it reads from stdin, one JSON line each, and answers on a private copy of stdout.

Started by launch/engines/local.py as `python -m launch.engines.worker`; never by hand.
"""

import json
import os
import signal
import sys
import time
import traceback


def _die_with_parent() -> None:
    """A killed driver must not leave workers that train on: they would race the next one."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        sys.exit(1)


def main() -> int:
    parent = os.getppid()
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to the log
    send = lambda **message: answers.write(json.dumps(message) + "\n")
    from launch import config, mesh, preempt, train

    last = 0.0

    def progress(done, total):
        nonlocal last
        if os.getppid() != parent:
            os._exit(1)
        if time.monotonic() - last > 0.2 or done == total:
            last = time.monotonic()
            send(kind="progress", done=done, total=total)

    first = True
    for line in sys.stdin:
        task = json.loads(line)
        try:
            run, where = config.from_dict(config.Run, task["run"]), config.from_dict(config.Where, task["where"])
            if first:
                mesh.simulate(mesh.parse(where.mesh))
                train.use_cache(where)
                first = False
            result = train.train(run, where, task["folder"], progress, task["tags"])
            send(kind="finished", id=result["id"], status=result["status"], seconds=result["seconds"]["total"])
        except preempt.Preempted as e:
            print(f"isoflop: {e}", file=sys.stderr)
            return preempt.STATUS
        except Exception as e:  # the driver decides; the whole trace goes to the worker's log
            traceback.print_exc()
            send(kind="failed", error=f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
