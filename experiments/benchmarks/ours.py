"""Our contender: the product's own loop (launch/runs/train.py), data and logging running and the
state donated, held at every stretch.

python -m experiments.benchmarks.ours SPEC.json     the protocol of contest.py; SPEC: {"run",
                                                    "where", "folder", "steps", "again"}
"""

import contextlib
import dataclasses
import json
import os
import resource
import sys
import time

import jax

from data.config import DataError
from launch import config
from launch.config import Run, Where
from launch.devices import mesh
from launch.runs import compiled, pack, train


class _Done(Exception):
    pass


class Turns:
    """The callback of the loop: answers at the end of a stretch and waits for the next "go". The
    first dispatch of a stretch is not timed: it brings back what a pause has taken away.
    """

    def __init__(self, steps: int, tokens: int, say):
        self._steps, self._tokens, self._say = steps, tokens, say
        self._last, self._paused, self._started = 0, None, None

    def __call__(self, done: int, total: int) -> None:
        """`done` updates are dispatched: when this is called those of the dispatch before are
        finished, and the newest has just begun.
        """
        finished, self._last = self._last, done
        now = finished, time.perf_counter(), time.process_time()
        if self._paused is None:
            if finished:
                self._pause(done, {"ready": True})
        elif self._started is None:
            self._started = now if finished > self._paused else None
        elif finished - self._started[0] >= self._steps:
            steps, wall, cpu = (b - a for a, b in zip(self._started, now))
            self._pause(
                done,
                {
                    "tokens": steps * self._tokens,
                    "wall_s": wall,
                    "cpu_s": cpu,
                    "peak_bytes": peak(),
                },
            )

    def _pause(self, done: int, answer: dict) -> None:
        jax.block_until_ready(jax.live_arrays())  # the newest dispatch belongs to no stretch
        self._say(answer)
        if not sys.stdin.readline():
            raise _Done
        self._paused, self._started = done, None


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def first_step(run: Run, where: Where, folder: str) -> tuple[float, float]:
    """Seconds from the call of the loop until its first update is under way, and until it is
    done.
    """
    started, marks = time.perf_counter(), []

    def progress(done, total):
        marks.append(time.perf_counter() - started)
        if len(marks) == 2:
            raise _Done

    try:
        train.train(run, where, folder, progress)
    except _Done:
        pass
    return marks[0], marks[1]


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
    compiled.use_cache(where.cache)

    def say(answer):
        return answers.write(json.dumps(answer) + "\n")

    if spec.get(
        "again"
    ):  # startup: a second run of equal shape in this process, with another seed and learning rate
        first_step(run, where, os.path.join(spec["folder"], "first"))
        say({"ready": True, "peak_bytes": peak()})
        other = dataclasses.replace(
            run,
            seed=run.seed + 1,
            optimizer=dataclasses.replace(run.optimizer, lr=2 * run.optimizer.lr),
        )
        if sys.stdin.readline():
            begun, done = first_step(other, where, os.path.join(spec["folder"], "second"))
            say({"again_begun_s": begun, "again_s": done})
        return 0
    turns = Turns(spec["steps"], max(1, where.members) * run.batch * run.model.seq_len, say)
    with contextlib.suppress(_Done):
        if where.members:
            _packed(run, where, spec["folder"], turns)
        else:
            train.train(run, where, os.path.join(spec["folder"], "run"), turns)
    return 0


def _packed(run: Run, where: Where, folder: str, turns: Turns) -> None:
    """`where.members` runs of other seeds, by the loop of packs; the first one's steps are told."""
    seeds = range(run.seed, run.seed + where.members)
    orders = [
        pack.Order(dataclasses.replace(run, seed=seed), os.path.join(folder, str(seed)), {})
        for seed in seeds
    ]
    left = iter(orders)

    def progress(order, done, total):
        if order is orders[0]:
            turns(done, total)

    def tell(told):
        if told.error:
            raise told.error

    pack.train(where, lambda: next(left, None), tell, progress)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (config.ConfigError, DataError) as e:  # its words alone: contest.py hands them on
        sys.exit(str(e))
