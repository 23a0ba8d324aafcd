"""Our contender: the product's own loop (launch/train.py), data and logging running and the state donated, held at every stretch.

python -m experiments.benchmarks.ours SPEC.json     the protocol of contest.py; SPEC: {"run", "where", "folder", "steps", "again"}
"""

import dataclasses
import json
import os
import resource
import sys
import time

import jax

from launch import config, mesh, train
from launch.config import Run, Where


class _Done(Exception):
    pass


class Turns:
    """The callback of the loop: answers at the end of a stretch and waits for the next "go"."""

    def __init__(self, steps: int, tokens: int, say):
        self._steps, self._tokens, self._say = steps, tokens, say
        self._last, self._since, self._goal = 0, None, None

    def __call__(self, done: int, total: int) -> None:
        """`done` updates are dispatched: when this is called those of the dispatch before are finished, and the newest has just begun."""
        finished, self._last = self._last, done
        if not finished:
            return
        if self._since is None:
            self._wait(done, {"ready": True})
        elif finished - self._since >= self._steps:
            wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self._wait(done, {"tokens": (finished - self._since) * self._tokens, "wall_s": wall, "cpu_s": cpu, "peak_bytes": peak})

    def _wait(self, done: int, answer: dict) -> None:
        jax.block_until_ready(jax.live_arrays())  # the newest dispatch belongs to no stretch
        self._say(answer)
        if not sys.stdin.readline():
            raise _Done
        self._since, self._wall, self._cpu = done, time.perf_counter(), time.process_time()


def first_step(run: Run, where: Where, folder: str) -> float:
    """Seconds from the call of the loop to the end of the first update."""
    started, last = time.perf_counter(), 0

    def progress(done, total):
        nonlocal last
        if last:
            raise _Done
        last = done

    try:
        train.train(run, where, folder, progress)
    except _Done:
        pass
    return time.perf_counter() - started


def main() -> int:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with open(sys.argv[1]) as f:
        spec = json.load(f)
    run, where = config.from_dict(Run, spec["run"]), config.from_dict(Where, spec["where"])
    if where.init_from:
        from launch.huggingface import folder

        run = dataclasses.replace(run, init=folder.fingerprint(where.init_from))
    mesh.simulate(mesh.parse(where.mesh))
    train.use_cache(where)
    say = lambda answer: answers.write(json.dumps(answer) + "\n")
    if spec.get("again"):  # startup: a second run of equal shape in this process, with another seed and learning rate
        first = first_step(run, where, os.path.join(spec["folder"], "first"))
        say({"ready": True, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
        other = dataclasses.replace(run, seed=run.seed + 1, optimizer=dataclasses.replace(run.optimizer, lr=2 * run.optimizer.lr))
        if sys.stdin.readline():
            say({"first_step_s": first, "again_s": first_step(other, where, os.path.join(spec["folder"], "second"))})
        return 0
    try:
        turns = Turns(spec["steps"], run.batch * run.model.seq_len, say)
        train.train(run, where, os.path.join(spec["folder"], "run"), turns)
    except _Done:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
