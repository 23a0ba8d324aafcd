"""A sweep under attack: whatever is killed, stopped, removed, truncated, filled up or started
twice, every run ends with one valid result, equal to the one of a sweep that was left alone.

    pytest -m slow tests/launch/test_faults.py -n 0 -s      50 faults over 24 runs, with the tally;
                                                     FAULTS_SEED=1 for another draw
"""

import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from launch.runs import record
from tests.conftest import ROOT

SWEEP = [
    "--config=quickstart",
    "--set=sweep.sizes=16",
    "--set=sweep.replicate_size=0",
    "--set=sweep.replicate_budget=0",
    "--set=sweep.replicate_seeds=",
    "--set=data.validation_windows=16",
    "--set=model.seq_len=32",
    "--set=where.tensorboard=false",
    "--set=where.steps_per_dispatch=10",
    "--set=where.lease=3",
    "--bootstrap=20",
]
CLOCKS = (
    "seconds",
    "cpu_seconds",
    "energy",
    "tokens_per_s",
    "members",
    "waited_s",
    "mfu_matmul",
    "where",
    "device",
    "commit",
    "shared",  # where a run of a trunk began
)


PATIENCE = 3600  # seconds for a sweep, on a machine that others use


def start(workdir, *more):
    env = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": ROOT}
    argv = [sys.executable, "-m", "experiments.verbs.sweep", *SWEEP, f"--workdir={workdir}", *more]
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(
            argv, cwd=ROOT, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )


def results(workdir) -> dict[str, dict]:
    """{run: its result, clocks left out}."""
    out = {}
    for path in pathlib.Path(workdir, "runs").glob(f"*/{record.RESULT}"):
        r = record.result(str(path.parent))
        out[path.parent.name] = {k: v for k, v in r.items() if k not in CLOCKS}
    return out


def children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout
    return [int(p) for p in found.split()]


class Watch(threading.Thread):
    """Counts the results that ever stood in a workdir, by their content: {run: {fingerprints}}."""

    def __init__(self, workdir):
        super().__init__(daemon=True)
        self._workdir, self.over, self.seen = pathlib.Path(workdir), threading.Event(), {}

    def run(self):
        while not self.over.wait(0.02):
            self.look()

    def look(self):
        for path in self._workdir.glob(f"runs/*/{record.RESULT}"):
            try:
                text = path.read_bytes()
                json.loads(text)
            except (OSError, ValueError):
                continue
            self.seen.setdefault(path.parent.name, set()).add(hashlib.sha256(text).hexdigest())


class Attack:
    """One sweep and who attacks it. Like a person at a terminal it types the command again when no
    driver is left, and does what the one line of an error says.
    """

    KINDS = (
        "kill worker",
        "kill driver",
        "stop worker",
        "stop driver",
        "remove file",
        "truncate file",
        "fill disk",
        "two drivers",
    )

    def __init__(self, workdir, seed, more=()):
        self.workdir, self.rng, self._more = pathlib.Path(workdir), random.Random(seed), more
        self.drivers, self.tally, self.destroyed, self.typed, self.stopped = (
            [],
            Counter(),
            Counter(),
            0,
            [],
        )
        self.watch = Watch(workdir)
        self.watch.start()

    def tend(self) -> bool:
        """Keeps a driver running. Returns whether one has ended with status 0."""
        for d in [d for d in self.drivers if d.poll() is not None]:
            self.drivers.remove(d)
            self.tally[f"driver ended with {d.returncode}"] += 1
            if d.returncode == 0:
                return True
            if d.returncode == 2:
                self.obey()
        if not self.drivers:
            self.type()
        return False

    def type(self):
        self.typed += 1
        self.drivers.append(start(self.workdir, *self._more))

    def obey(self):
        """ "... is damaged (...): move it away"."""
        said = re.findall(
            r"(\S+) is damaged .* move it away", pathlib.Path(f"{self.workdir}.log").read_text()
        )
        if said and os.path.exists(said[-1]):
            os.rename(said[-1], f"{self.workdir}.{time.monotonic_ns()}.damaged")
            self.tally["damaged file moved away, as told"] += 1

    def workers(self) -> list[int]:
        return [c for d in self.drivers for c in children(d.pid)]

    def pause(self, pid):
        os.kill(pid, signal.SIGSTOP)
        self.stopped.append((time.monotonic() + self.rng.uniform(0.5, 8), pid))

    def go_on(self, all_of_them=False):
        for when, pid in list(self.stopped):
            if all_of_them or time.monotonic() > when:
                self.stopped.remove((when, pid))
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass

    def files(self) -> list[pathlib.Path]:
        return sorted(p for p in self.workdir.rglob("*") if p.is_file())

    def damage(self, kind) -> bool:
        """A checkpoint has many files, a result is one: each kind of name is as likely."""
        by_name = {}
        for p in self.files():
            by_name.setdefault(
                (
                    "checkpoint"
                    if "checkpoints" in p.parts
                    else "lease"
                    if ".lease" in p.parts
                    else p.name
                ),
                [],
            ).append(p)
        if not by_name:
            return False
        name = self.rng.choice(sorted(by_name))
        path = self.rng.choice(by_name[name])
        try:
            if path.name == record.RESULT:
                self.watch.look()
                self.destroyed[path.parent.name] += 1
            if kind == "remove file":
                path.unlink()
            else:
                os.truncate(path, self.rng.randrange(0, max(1, path.stat().st_size)))
        except OSError:
            return False
        self.tally[f"  {kind}: {name if not name.startswith('worker') else 'log'}"] += 1
        return True

    def fill(self) -> bool:
        if not os.path.ismount(self.workdir.parent):
            return False
        balloon = self.workdir.parent / "balloon"
        try:
            with open(balloon, "wb") as f:
                while True:
                    f.write(b"\0" * 4096)
                    f.flush()
        except OSError:
            pass
        until = time.monotonic() + self.rng.uniform(1, 4)
        while time.monotonic() < until:
            self.tend()
            time.sleep(0.1)
        balloon.unlink(missing_ok=True)
        return True

    def strike(self, kind) -> bool:
        """Returns whether there was something to hit."""
        if kind == "two drivers":
            if len(self.drivers) > 1:
                return False
            self.type()
            return True
        if kind == "fill disk":
            return self.fill()
        if kind.endswith("file"):
            return self.damage(kind)
        pids = self.workers() if "worker" in kind else [d.pid for d in self.drivers]
        if not pids:
            return False
        try:
            pid = self.rng.choice(pids)
            if kind.startswith("stop"):
                self.pause(pid)
            else:
                os.kill(pid, signal.SIGTERM if kind.startswith("tell") else signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def faults(self, n: int, pace: tuple[float, float], kinds=KINDS):
        done = 0
        while done < n:
            until = time.monotonic() + self.rng.uniform(*pace)
            while time.monotonic() < until:
                self.go_on()
                self.tend()
                time.sleep(0.05)
            kind = self.rng.choice(kinds)
            if self.strike(kind):
                done += 1
                self.tally[kind] += 1

    def finish(self, seconds: float):
        self.go_on(all_of_them=True)
        deadline = time.monotonic() + seconds
        while not self.tend():
            self.go_on()
            assert time.monotonic() < deadline, pathlib.Path(f"{self.workdir}.log").read_text()[
                -3000:
            ]
            time.sleep(0.1)
        while self.drivers:  # the other driver, if there are two
            self.drivers[0].wait(timeout=seconds)
            self.drivers.pop(0)
        self.watch.look()
        self.watch.over.set()

    def verdict(self, alone: dict) -> dict:
        """Counts of what must be 0."""
        found = results(self.workdir)
        return {
            "lost": len(alone.keys() - found.keys()),
            "different": sum(found[k] != alone[k] for k in found.keys() & alone.keys()),
            "unasked": len(found.keys() - alone.keys()),
            "twice": sum(len(s) > 1 + self.destroyed[k] for k, s in self.watch.seen.items()),
        }

    def end(self):
        self.go_on(all_of_them=True)
        for d in self.drivers:
            d.kill()
            d.wait()


def alone(workdir, *more) -> dict:
    process = start(workdir, *more)
    assert process.wait(timeout=PATIENCE) == 0, pathlib.Path(f"{workdir}.log").read_text()[-2000:]
    return results(workdir)


@pytest.mark.slow
def test_a_few_faults(tmp_path):
    """Two drivers on one folder, a worker killed and one told to stop, in half a minute and without
    the sweep to compare with.
    """
    more = [
        "--set=sweep.families=dense",
        "--set=sweep.budgets=1e10",
        "--set=sweep.seeds=0,1,2",
        "--set=where.workers=1",
    ]
    attack = Attack(tmp_path / "w", 0, [*more, "--set=where.checkpoint_every=500"])
    try:
        for kind in ("two drivers", "kill worker", "tell worker to stop"):
            attack.faults(1, (1, 2), [kind])
        attack.finish(120)
    finally:
        attack.end()
    found = results(tmp_path / "w")
    assert len(found) == 3 and all(r["status"] == "finished" for r in found.values())
    assert attack.verdict(found)["twice"] == 0 and attack.tally["driver ended with 0"] == 1, (
        attack.tally
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "members,budgets,every", [(0, "2e10,4e10,6e10", 1000), (4, "1e10,2e10,3e10", 500)]
)
def test_fifty_faults_over_24_runs(members, budgets, every, tmp_path):
    """One run at a time, and packs of four. About a quarter of an hour on two busy cores, each."""
    seed = int(os.environ.get("FAULTS_SEED", "0"))
    more = [
        f"--set=sweep.budgets={budgets}",
        "--set=sweep.seeds=0,1,2,3",
        f"--set=where.checkpoint_every={every}",
        f"--set=where.members={members}",
    ]
    expected = alone(tmp_path / "alone", *more)
    assert len(expected) == 24
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)], capture_output=True
        ).returncode
        == 0
    )
    attack = Attack(disk / "w", seed, more)
    began = time.monotonic()
    try:
        kinds = [k for k in Attack.KINDS if mounted or k != "fill disk"]
        attack.faults(50, (1.5, 7), kinds)
        hit = len(results_so_far(attack))
        attack.finish(PATIENCE)
        verdict = attack.verdict(expected)
        print(
            f"\nseed {seed}: 50 faults, {time.monotonic() - began:.0f} s, command typed"
            f" {attack.typed} times, {hit} of 24 done at the last fault"
        )
        for name, n in sorted(attack.tally.items()):
            print(f"  {n:3d} {name}")
        print(
            f"  results that were destroyed and made again: {sum(attack.destroyed.values())};"
            f" verdict {verdict}"
        )
        for k, r in results(attack.workdir).items():
            if changed := [name for name in r if r[name] != expected[k].get(name)]:
                print(
                    f"  {k} differs in"
                    f" {', '.join(f'{name}: {r[name]!r} for {expected[k].get(name)!r}' for name in changed)}"  # noqa: E501
                )
        assert verdict == {"lost": 0, "different": 0, "unasked": 0, "twice": 0}
    finally:
        attack.end()
        if mounted:
            (
                shutil.copytree(disk, os.environ["FAULTS_KEEP"], dirs_exist_ok=True)
                if "FAULTS_KEEP" in os.environ
                else None
            )
            subprocess.run(["umount", "-l", str(disk)], check=False)


TRUNKS = [
    "--set=schedule.decay=wsd",
    "--set=schedule.warmup_tokens=6400",
    "--set=sweep.budgets=",
    "--set=sweep.tokens=1e5,2e5,4e5",
    "--set=sweep.seeds=0,1",
    "--set=where.checkpoint_every=1000",
]


@pytest.mark.slow
def test_faults_over_trunks(tmp_path):
    """25 faults over 12 runs of four trunks; the sweep that was left alone has none."""
    expected = alone(tmp_path / "alone", *TRUNKS)
    assert len(expected) == 12
    more = [*TRUNKS, "--set=sweep.trunks=true"]
    attack = Attack(tmp_path / "w", int(os.environ.get("FAULTS_SEED", "0")), more)
    try:
        kinds = [k for k in Attack.KINDS if k != "fill disk"]
        attack.faults(25, (1.5, 6), kinds)
        attack.finish(600)
        for name, n in sorted(attack.tally.items()):
            print(f"  {n:3d} {name}")
        verdict = attack.verdict(expected)
        shared = [
            record.result(str(p.parent))["shared"]
            for p in attack.workdir.glob(f"runs/*/{record.RESULT}")
        ]
        print(f"  {sum(map(bool, shared))} of 12 runs began at a fork; verdict {verdict}")
        assert verdict == {"lost": 0, "different": 0, "unasked": 0, "twice": 0}
        assert any(shared)
    finally:
        attack.end()


def results_so_far(attack) -> list:
    return list(attack.workdir.glob(f"runs/*/{record.RESULT}"))
