"""What the verbs import before they work, and what they write to: closed pipes, terminals that are
narrow, dumb or without UTF-8, users without a home.
"""

import fcntl
import json
import os
import pathlib
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading

import numpy as np
import pytest

from data import cache
from experiments import cli
from experiments.console import terminal
from experiments.laws import conventions, table_fit
from launch import engines
from launch.runs import lease, record
from tests.conftest import ROOT

HEAVY = ("jax", "numpy", "scipy", "optax", "flax", "matplotlib", "experiments.laws.fitting.solve")
# all verbs in one process: ARGVS is a list of command lines; what each left behind goes to a file
DRIVER = f"""
import json, os, sys
from experiments import cli, start
out, argvs = sys.argv[1], json.loads(sys.argv[2])
stdout, said = (os.dup(1) if "--dup" in sys.argv else None), []
for argv in argvs:
    if stdout is not None:
        os.dup2(stdout, 1)
    status = cli.main(argv)
    said.append([argv, status, [m for m in {HEAVY} if m in sys.modules]])
with open(out, "w") as f:
    json.dump(said, f)
"""


@pytest.fixture
def sweep(tmp_path):
    """A folder with a run in every state but done, which status shows with all its signs."""
    ids = [f"{i:012x}" for i in range(3)]
    about = {"sweep": {"name": "naïve ● sweep"}, "runs": [{"id": i, "flops": 1.0} for i in ids]}
    root = tmp_path / "w"
    (root / engines.RUNS).mkdir(parents=True)
    (root / engines.SWEEP).write_text(json.dumps(about))
    for i in ids[:2]:
        (root / engines.RUNS / i).mkdir()
    record.fail(str(root / engines.RUNS / ids[0]), "naïve — reason " * 8)
    with lease.Lease(str(root / engines.RUNS / ids[1]), 60):
        yield root


def driver(tmp_path, argvs, **how):
    """[(argv, status, heavy modules)], and what was written to stderr."""
    out, more = tmp_path / "said.json", how.pop("more", [])
    env = {**os.environ, "PYTHONPATH": ROOT, "XLA_FLAGS": "", **how.pop("env", {})}
    env = {k: v for k, v in env.items() if v is not None}
    argv = [sys.executable, "-c", DRIVER, str(out), json.dumps(argvs), *more]
    if closed := how.pop("closed", ""):
        argv = ["bash", "-c", f'exec "$@" {closed}', "bash", *argv]
    how = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, **how}
    done = subprocess.run(argv, env=env, cwd=tmp_path, check=False, **how)
    err = (done.stderr or b"").decode(errors="replace")
    assert done.returncode == 0, err
    return json.loads(out.read_text()), err


def light(sweep) -> list[list[str]]:
    return [
        ["--help"],
        ["trian"],
        *[[v, "--help"] for v in cli.VERBS],
        *[[v, "--no_such_flag=1"] for v in cli.VERBS],
        ["status", str(sweep)],
        ["status", str(sweep), "--format=json"],
    ]


def test_a_verb_imports_what_it_uses(tmp_path, sweep):
    """Help, wrong flags, and status, of a finished run too."""
    example = os.path.join(ROOT, "examples", "positions")
    for argv, _, heavy in driver(tmp_path, [*light(sweep), ["status", example]])[0]:
        assert not heavy, (argv, heavy)


def test_the_laws_that_help_names_are_those_that_there_are():
    assert conventions.LAWS == table_fit.LAWS


def narrow(tmp_path, argvs):
    """On a terminal of 60 columns. Returns what stands on it, too."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    shown = []

    def read():
        try:
            while chunk := os.read(master, 65536):
                shown.append(chunk)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    env = {"COLUMNS": None, "LINES": None, "TERM": "xterm"}
    try:
        said, _ = driver(tmp_path, argvs, stdout=slave, stderr=slave, stdin=slave, env=env)
    finally:
        os.close(slave)
        reader.join()
        os.close(master)
    return said, b"".join(shown).decode()


def through(device: str, tmp_path, argvs):
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if device == "narrow":
        return narrow(tmp_path, argvs)
    if device == "pipe":
        read, write = os.pipe()
        os.close(read)
        try:
            return driver(tmp_path, argvs, stdout=write, more=["--dup"])
        finally:
            os.close(write)
    how = {
        "ascii": {"env": ascii_alone},
        "dumb": {"env": {"TERM": "dumb"}},
        "homeless": {"env": {"HOME": None, "XDG_CACHE_HOME": None}},
        "no stdin": {"closed": "<&-"},
        "nothing": {"closed": "<&- >&- 2>&-"},
    }
    return driver(tmp_path, argvs, **how[device])


DEVICES = ["ascii", "dumb", "homeless", "no stdin", "nothing", "narrow", "pipe"]


def check(device: str, said, err: str) -> None:
    assert "Traceback" not in err and "Exception ignored" not in err, err
    for argv, status, _ in said:
        wrong = argv[-1] == "--no_such_flag=1" or argv[0] == "trian"
        expected = 2 if wrong else terminal.CLOSED if device == "pipe" else 0
        assert status == expected, (argv, status)


@pytest.mark.parametrize("device", DEVICES)
def test_every_verb_writes_to_every_device(device, tmp_path, sweep):
    said, err = through(device, tmp_path, light(sweep))
    check(device, said, err)
    if device == "narrow":
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err[err.index("naïve ●") :])
        assert "1 running" in shown and max(map(len, shown.splitlines()[:12])) <= 60, shown


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_every_verb_works_on_every_device(device, tmp_path):
    """The verbs at work, from the first run to the report; `reproduce` wants its authors' file."""
    example = tmp_path / "sweep"
    shutil.copytree(os.path.join(ROOT, "examples", "positions"), example)
    run, hf = str(tmp_path / "run"), str(tmp_path / "hf")
    np.save(tmp_path / "t.npy", np.zeros((1, 4), np.int32))
    argvs = [
        [
            "train",
            "--config=tiny_dense",
            f"--workdir={run}",
            "--set=horizon.steps=60",
            "--set=model.mlp.activation=swiglu",
        ],
        ["sample", f"--run={run}", "--tokens=4"],
        ["export", f"--run={run}", f"--hf_dir={hf}"],
        ["logits", f"--hf_dir={hf}", f"--tokens={tmp_path}/t.npy", f"--out={tmp_path}/l.npy"],
        ["bench", "data", "--scale=toy", "--rounds=1"],
        ["count", "--config=tiny_dense"],
        ["plan", "--config=quickstart"],
        ["sweep", "--config=quickstart", "--plan_only"],
        ["status", str(example)],
        ["fit", f"--workdir={example}", "--bootstrap=20"],
        ["report", f"--workdir={example}", "--bootstrap=20"],
    ]
    check(device, *through(device, tmp_path, argvs))


def test_a_reader_that_goes_ends_a_verb_silently(tmp_path, sweep):
    """As a shell does it, Python's own end included."""
    command = f"{sys.executable} -m experiments.start status {sweep} --watch --every=.1 | head -1"
    done = subprocess.run(
        ["bash", "-c", f'{command}; exit "${{PIPESTATUS[0]}}"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (terminal.CLOSED, "") and "sweep" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("argv", [["--help"], ["fit", "--help"]])
def test_a_full_disk_under_the_output_is_one_line(argv):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "experiments.start", *argv],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "no space left" in done.stderr


def test_signs_have_a_plain_form():
    assert "● 3, ✗ 1, ━ é".encode("ascii", "isoflop") == b"* 3, x 1, = ?"


def test_caches_of_a_user_without_a_home(monkeypatch):
    for name in ("ISOFLOP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert pathlib.Path(cache.root()).parent == pathlib.Path(tempfile.gettempdir())
    monkeypatch.setenv("ISOFLOP_CACHE", "/given")
    assert cache.root() == "/given"
