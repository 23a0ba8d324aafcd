"""What may go wrong around a worker: files of the user's folder, a full disk, ends without end;
and leases among hosts whose clocks differ.
"""

import errno
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from experiments import cli
from launch import config, engines, files
from launch.config import ConfigError, Where
from launch.devices import child_process
from launch.engines import attempts, local, worker
from launch.runs import lease, ledger, record
from tests.conftest import ROOT

ALONE = Where(mesh="data=1", tensorboard=False, workers=1)
STRAYS = ("data", "model", "launch", "experiments", "random", "json", "jax")


@pytest.fixture
def strays(tmp_path):
    """A folder of a user whose files have our modules' names, and Python's."""
    for name in STRAYS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('stray {name}')\n")
    return tmp_path


@pytest.mark.parametrize("before", ["", ":", f"{ROOT}:"], ids=["unset", "empty entries", "ours"])
def test_children_import_nothing_of_the_users_folder(before, strays, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", before)
    code = "import random, json, data.config, launch.engines.worker as w; print(w.__file__)"
    argv = child_process.command("-c", code)
    done = subprocess.run(
        argv,
        cwd=strays,
        env=child_process.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (worker.__file__, "")


def test_the_console_imports_nothing_of_the_users_folder(strays):
    (strays / "bin").mkdir()
    script = strays / "bin" / "isoflop"
    script.write_text("import sys\nfrom experiments.start import main\nsys.exit(main())\n")
    env = {**os.environ, "PYTHONPATH": ROOT}
    for verb in ([], ["status"], ["plan"], ["sweep"]):
        done = subprocess.run(
            [sys.executable, str(script), *verb, "--help"],
            cwd=strays,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and "stray" not in done.stdout + done.stderr, done.stderr


def test_every_program_starts_its_children_so():
    """One place knows how; what a cluster starts says the same."""
    for package in ("launch", "experiments", "data"):
        for path in pathlib.Path(ROOT, package).rglob("*.py"):
            if path.name not in ("child_process.py", "allocator.py"):
                assert "sys.executable" not in path.read_text(), path
    assert "PYTHONSAFEPATH=1" in pathlib.Path(ROOT, "launch/engines/slurm.py").read_text()
    assert "python -P -m" in pathlib.Path(ROOT, "launch/engines/skypilot.py").read_text()


# ---- workers that end


def stub(monkeypatch, code: str) -> None:
    monkeypatch.setattr(child_process, "command", lambda *argv: [sys.executable, "-c", code])


def tasks_of(workdir, n: int = 1) -> list:
    runs = [config.Run(seed=seed, horizon=config.Horizon(steps=1)) for seed in range(n)]
    return [
        engines.Task(r, engines.folder(str(workdir), config.run_id(r)), {}, 0, 1.0) for r in runs
    ]


def test_workers_that_cannot_start_say_why(tmp_path, monkeypatch):
    """Nothing but the driver knows: the run's folder was never made."""
    code = "import sys; print('a warning', file=sys.stderr); import nothing_of_that_name"
    stub(monkeypatch, code)
    (line,) = engines.submit(tasks_of(tmp_path), ALONE, str(tmp_path))
    assert "ended 3 times in a row, at last with status 1" in line
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in line


def test_a_worker_that_is_always_told_to_stop_is_given_up(tmp_path, monkeypatch):
    stub(monkeypatch, "raise SystemExit(75)")
    (line,) = engines.submit(tasks_of(tmp_path), ALONE, str(tmp_path))
    assert f"ended {engines.STOPS} times in a row, at last with status 75" in line


SWEEP = [
    "sweep",
    "--config=quickstart",
    "--set=sweep.budgets=1e8,2e8",
    "--set=sweep.sizes=8,16",
    "--set=sweep.families=dense",
    "--set=sweep.replicate_size=0",
    "--set=sweep.replicate_budget=0",
    "--set=sweep.replicate_seeds=",
    "--set=model.seq_len=32",
    "--set=where.workers=1",
    "--mesh=data=1",
]


def test_a_sweep_whose_workers_gave_up_ends_with_status_1(tmp_path, monkeypatch, capsys):
    stub(monkeypatch, "import nothing_of_that_name")
    assert cli.main([*SWEEP, f"--workdir={tmp_path}"]) == 1
    out = capsys.readouterr()
    assert "No module named 'nothing_of_that_name'" in out.err and "Traceback" not in out.err
    assert "handed over" not in out.out


FULL = """
import json, sys
for line in sys.stdin:
    open("given", "a").write("1")
    order = json.loads(line)["orders"][0]
    said = {"kind": "failed", "id": order["id"], "error": "no space left", "full": True}
    print(json.dumps(said), flush=True)
"""


def test_a_full_disk_stops_a_sweep(tmp_path, monkeypatch, capsys):
    """One line, a status that is not zero, and nothing more is handed out."""
    stub(monkeypatch, FULL)
    monkeypatch.chdir(tmp_path)
    assert cli.main([*SWEEP, f"--workdir={tmp_path / 'w'}"]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert [line for line in err if "no space" in line] == err[-1:], err
    assert err[-1].startswith("isoflop sweep: no space left on the disk")
    assert (tmp_path / "given").read_text() == "1"


def test_a_worker_that_a_full_disk_killed_stops_it_too(tmp_path, monkeypatch):
    stub(monkeypatch, "raise SystemExit(1)")

    def full(*a, **k):
        return (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(local.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        engines.submit(tasks_of(tmp_path, 3), ALONE, str(tmp_path))


def test_a_worker_says_so_though_its_log_is_full(tmp_path, monkeypatch):
    from launch.runs import train

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def wrapped(*_, **__):
        try:
            full()
        except OSError as e:
            raise files.RecordError("metrics.jsonl cannot be written") from e

    (task,) = tasks_of(tmp_path)
    monkeypatch.setattr(attempts.traceback, "print_exception", full)
    for fault in (full, wrapped):
        monkeypatch.setattr(train, "train", fault)
        message = attempts.attempt(worker.order(task, ALONE))
        assert message["full"] and "no space left on the disk" in message["error"]
    monkeypatch.setattr(
        train, "train", lambda *_, **__: (_ for _ in ()).throw(ConfigError("other"))
    )
    monkeypatch.setattr(attempts.traceback, "print_exception", lambda e: None)
    assert not attempts.attempt(worker.order(task, ALONE))["full"]


# ---- the lease


@pytest.fixture
def shifted(monkeypatch):
    """This host's clock runs 200 s ahead of the disk's."""
    real = time.time
    monkeypatch.setattr(lease, "_ahead", {})
    monkeypatch.setattr(time, "time", lambda: real() + 200)


def held_elsewhere(folder, **changes) -> None:
    root = pathlib.Path(folder, lease.FOLDER)
    root.mkdir(parents=True)
    about = {"token": "t", "host": "h", "pid": 7, "machine": "", "born": "", "seconds": 60}
    (root / "1.json").write_text(json.dumps({**about, **changes}))


def nameless(monkeypatch) -> None:
    """A disk without nameless files, such as NFS."""
    real = os.open

    def refuse(path, flags, *more, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("disk", ["local", "nfs", "read only"])
def test_one_clock(disk, shifted, tmp_path, monkeypatch):
    if disk == "nfs":
        nameless(monkeypatch)
    if disk == "read only":
        monkeypatch.setattr(lease, "_stamp", lambda f: (_ for _ in ()).throw(OSError(30, "ro")))
    held_elsewhere(tmp_path, renewed=time.time())
    standing = ledger.standing(str(tmp_path))
    assert standing.state == "running" and standing.age < 10
    if disk != "read only":
        with pytest.raises(lease.Held), lease.Lease(str(tmp_path), 60):
            pass
    path = tmp_path / lease.FOLDER / "1.json"
    silent = path.stat().st_mtime - 61
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "renewed": held["renewed"] - 61}))
    os.utime(path, (silent, silent))
    assert ledger.standing(str(tmp_path)).state == "waiting"
    assert os.listdir(tmp_path) == [lease.FOLDER]


def test_who_waits_for_a_run_sleeps(tmp_path, monkeypatch):
    """Also where the run seems free and is held again at each attempt."""
    slept = []
    monkeypatch.setattr(attempts.time, "sleep", slept.append)
    said = iter([{"kind": "elsewhere"}] * 5 + [{"kind": "finished"}])
    monkeypatch.setattr(attempts, "attempt", lambda order: next(said))
    assert attempts.serve_one({"folder": str(tmp_path)})["kind"] == "finished"
    assert len(slept) == 5


def test_contenders_leave_each_other_alone(tmp_path):
    """Of eight one has the run, the others hear that it is held, and nobody loses a file."""
    wrong, had, deadline = [], [], time.monotonic() + 3

    def contend():
        while time.monotonic() < deadline:
            try:
                files.write_json(str(tmp_path / record.RUN), {"id": "x"})
                with lease.Lease(str(tmp_path), 60) as mine:
                    mine.check()
                    had.append(1)
            except lease.Held:
                pass
            except Exception as e:
                wrong.append(repr(e))

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert had and not wrong, (len(wrong), wrong[:3])


# ---- the same with real workers


def typed(workdir, cwd):
    """The sweep as a user types it in `cwd`, whose own files have our modules' names."""
    (cwd / "bin").mkdir()
    script = cwd / "bin" / "isoflop"
    script.write_text("import sys\nfrom experiments.start import main\nsys.exit(main())\n")
    argv = [a for a in SWEEP if not a.startswith("--mesh")]
    return subprocess.run(
        [sys.executable, str(script), *argv, f"--workdir={workdir}", "--bootstrap=20"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ROOT, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_sweep_in_a_folder_with_files_of_our_names(strays, tmp_path_factory):
    done = typed(tmp_path_factory.mktemp("sweep") / "w", strays)
    assert done.returncode == 0 and "report:" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_sweep_on_a_disk_that_fills(tmp_path):
    """A small disk in memory, which only root can mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        done = typed(disk / "w", tmp_path)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    lines = [line for line in done.stderr.splitlines() if "no space" in line]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert lines[0].startswith("isoflop sweep: no space left on the disk")
