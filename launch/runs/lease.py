"""Who trains a run: FOLDER/.lease/NUMBER.json names the holder (host, pid, token, renewed time); of
several the highest number holds.

A lease is created exclusively, which local disks and NFS do atomically; on a bucket mount two
processes may slip in together. So two workers may overlap, two results may not: the holder reads
its lease again before every save and before the result, and stops if it is no longer the highest;
and the result is put where none stands (files.write_once). flock is not used: mounted buckets have
none.

A holder renews its lease from a thread. One that has not for `seconds`, or whose process has died
on this very machine, is taken over.

There is one clock: that of the disk, which stamps the leases. Hosts of a cluster need not agree on
the time. `living` is the one question that everybody asks.
"""

import contextlib
import json
import math
import os
import platform
import threading
import time
import uuid
from typing import NamedTuple

from launch import files
from launch.files import RecordError

FOLDER = ".lease"
# seconds after which a half-written file belongs to a killed process: a living one needs far less
ABANDONED = 60.0
ASK_AGAIN = 60.0  # seconds for which the difference between a disk's clock and ours is believed
_ahead: dict[int, tuple[float, float]] = {}  # device: (asked when, its clock less ours)


class Held(RecordError):
    """Another process trains this run."""


class Lost(RecordError):
    """Another process has taken this run over; it goes on there."""


class Holder(NamedTuple):
    """What a lease says. `renewed`: when it was last written, by the clock of the file's disk;
    `said`: by the holder's own clock; `seconds`: how long that is good for.
    """

    number: int
    token: str
    host: str
    pid: int
    machine: str
    born: str
    seconds: float
    renewed: float
    said: float

    def living(self, now: float) -> bool:
        """Whether the holder is still to be reckoned with at `now`, by the same disk's clock."""
        if self.machine and self.machine == _machine() and _process_start(self.pid) != self.born:
            return False
        return abs(now - self.renewed) <= self.seconds

    def __str__(self):
        return f"process {self.pid} on {self.host}"


def _machine() -> str:
    """This boot of this machine and its process table; empty where pids cannot be told apart for
    sure (no /proc).
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as f:
            return f"{f.read().strip()}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """When the process started, in ticks since the boot: a pid is used again, a pair of pid and
    tick is not. Empty for the dead.
    """
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as f:
            after = f.read().rpartition(")")[2].split()
        return "" if after[0] in "ZX" else after[19]
    except (OSError, IndexError):
        return ""


def holder(folder: str) -> Holder | None:
    """The holder that FOLDER/.lease names; None if nobody does. A file that says nothing readable
    counts by its age alone.
    """
    root = os.path.join(folder, FOLDER)
    for number in sorted(_numbers(root), reverse=True):
        path = os.path.join(root, f"{number}.json")
        try:
            renewed = os.stat(path).st_mtime
        except OSError:  # given back meanwhile
            continue
        try:
            d = files.read_json(path, "lease")
            seconds = min(max(float(d["seconds"]), 0.1), 86400.0)
            return Holder(
                number,
                *(str(d[k]) for k in ("token", "host")),
                int(d["pid"]),
                str(d["machine"]),
                str(d["born"]),
                seconds,
                renewed,
                float(d.get("renewed", renewed)),
            )
        except (RecordError, KeyError, TypeError, ValueError, OverflowError):
            return Holder(number, "", "an unknown host", 0, "", "", 60.0, renewed, renewed)
    return None


def _numbers(root: str) -> list[int]:
    try:
        names = os.listdir(root)
    except OSError:
        return []
    return [
        int(n[:-5]) for n in names if n.endswith(".json") and n[:-5].isdecimal() and len(n) < 20
    ]


def living(folder: str) -> Holder | None:
    """Who holds the run in `folder` and is to be reckoned with, by the clock of its disk; None if
    nobody is.
    """
    found = holder(folder)
    return found if found and found.living(now(folder, found)) else None


def now(folder: str, found: Holder) -> float:
    """The clock of the disk; in a folder that one may only read, as the holder's clock shows it."""
    try:
        return clock(folder)
    except OSError:
        return time.time() + found.renewed - found.said


def clock(folder: str) -> float:
    """Now, by the clock that stamps files in `folder`. Raises OSError where none can be written."""
    device, mine = os.stat(folder).st_dev, time.monotonic()
    asked, ahead = _ahead.get(device, (-math.inf, 0.0))
    if mine - asked > ASK_AGAIN:
        ahead = _stamp(folder) - time.time()
        _ahead[device] = mine, ahead
    return time.time() + ahead


def _stamp(folder: str) -> float:
    """The time that the disk gives to a file written now. Where it can, the file has no name."""
    with contextlib.suppress(OSError, AttributeError):  # NFS and macOS have no files without names
        handle = os.open(folder, os.O_TMPFILE | os.O_WRONLY)
        try:
            return os.fstat(handle).st_mtime
        finally:
            os.close(handle)
    path = os.path.join(folder, f"{files.UNFINISHED}{uuid.uuid4().hex}")
    with open(path, "x") as f:
        stamp = os.fstat(f.fileno()).st_mtime
    with contextlib.suppress(OSError):
        os.remove(path)
    return stamp


class Lease:
    """``with Lease(folder, seconds) as lease``: raises Held if another has it; `check` raises Lost
    once another took it.
    """

    def __init__(self, folder: str, seconds: float):
        self._root, self._seconds, self._token = (
            os.path.join(folder, FOLDER),
            seconds,
            uuid.uuid4().hex,
        )
        self._over, self.lost = threading.Event(), threading.Event()

    def _text(self) -> str:
        about = {
            "token": self._token,
            "host": platform.node(),
            "pid": os.getpid(),
            "machine": _machine(),
            "born": _process_start(os.getpid()),
        }
        return (
            json.dumps({**about, "seconds": self._seconds, "renewed": round(time.time(), 1)}).ljust(
                400
            )
            + "\n"
        )

    def __enter__(self):
        folder = os.path.dirname(self._root)
        os.makedirs(folder, exist_ok=True)
        found = holder(folder)  # read once: between two looks another may take it
        if found and found.living(now(folder, found)):
            raise Held(f"{folder} is in use by {found}: wait for it, or stop it")
        self._number = found.number + 1 if found else 1
        self._path = os.path.join(self._root, f"{self._number}.json")
        try:  # meanwhile another may make the folder, take the lease, or give it back
            os.makedirs(self._root, exist_ok=True)
            with open(self._path, "x") as f:
                f.write(self._text())
        except (FileExistsError, FileNotFoundError):
            raise Held(f"{folder} is in use by a process that was faster: wait for it") from None
        for number in _numbers(self._root):
            if number < self._number:
                self._remove(f"{number}.json")
        self._sweep(folder)
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def _sweep(self, folder: str) -> None:
        """Removes what a killed process left half written; what is young may be a living one's."""
        today = clock(folder)
        for place in (folder, self._root):
            for name in os.listdir(place):
                if name.startswith(files.UNFINISHED):
                    path = os.path.join(place, name)
                    with contextlib.suppress(OSError):
                        if today - os.stat(path).st_mtime > ABANDONED:
                            os.remove(path)

    def __exit__(self, *_):
        self.give_back()

    def give_back(self) -> None:
        """Whoever asks next has the run at once."""
        self._over.set()
        self._thread.join()
        if self._mine():
            self._remove(os.path.basename(self._path))
        with contextlib.suppress(OSError):
            os.rmdir(self._root)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.remove(os.path.join(self._root, name))

    def _mine(self) -> bool:
        found = holder(os.path.dirname(self._root))
        return found is not None and found.number == self._number and found.token == self._token

    def _renew(self) -> None:
        while not self._over.wait(self._seconds / 4):
            if not self._mine():
                self.lost.set()
                return
            with (
                contextlib.suppress(OSError),
                open(self._path, "r+") as f,
            ):  # of equal length: never half there, and no room needed
                f.write(self._text())

    def check(self) -> None:
        """Raises Lost unless this process still holds the run, as its folder says now."""
        if not self._mine():
            self.lost.set()
        self.watch()

    def watch(self) -> None:
        """The same from memory: what the last renewal saw."""
        if self.lost.is_set():
            found = holder(os.path.dirname(self._root))
            raise Lost(
                f"{os.path.dirname(self._root)} was taken over by {found or 'another process'}: it"
                " goes on there"
            )


class Nothing:
    """What the other processes of a run hold: process 0 holds it for all."""

    def check(self) -> None:
        pass

    watch = give_back = check
