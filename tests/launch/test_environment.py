"""What keeps jax from starting is told in one line, before anything is written."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

WRONG = {
    "no such device": (
        {"JAX_PLATFORMS": "cuda"},
        "JAX_PLATFORMS=cuda, but jax finds no such device",
    ),
    "no compiler": ({"JAX_DISABLE_JIT": "1"}, "unset JAX_DISABLE_JIT"),
    "no such flag": (
        {"XLA_FLAGS": "--xla_nonsense=1"},
        "XLA does not know --xla_nonsense=1: take it out of XLA_FLAGS",
    ),
    "few files": ({}, "only 24 files may be open at a time here"),
}
VERBS = {
    "train": ["--config=tiny_dense", "--workdir=OUT"],
    "sweep": ["--config=quickstart", "--workdir=OUT"],
    "sample": ["--run=OUT"],
    "export": ["--run=OUT", "--hf_dir=OUT"],
}


def ask(verb, wrong, out, environment, limit=""):
    flags = [f.replace("OUT", str(out)) for f in VERBS[verb]]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | environment
    command = [sys.executable, "-m", "experiments.start", verb, *flags]
    if limit:
        command = ["bash", "-c", f'{limit}; exec "$@"', "-", *command]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "verb,wrong",
    [("train", w) for w in WRONG] + [("sweep", "no such device"), ("sample", "no compiler")],
)
def test_one_line(verb, wrong, tmp_path):
    environment, line = WRONG[wrong]
    done = ask(verb, wrong, tmp_path / "r", environment, "ulimit -n 24" * (wrong == "few files"))
    assert done.returncode == 2 and line in done.stderr, done.stderr[-2000:]
    assert done.stderr.count("\n") == 1 and not done.stdout and not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("wrong", WRONG)
def test_one_line_from_every_verb_that_compiles(verb, wrong, tmp_path):
    test_one_line(verb, wrong, tmp_path)


def test_a_low_limit_is_raised_where_one_may(tmp_path):
    code = (
        "import resource; from launch.devices import environment_check; environment_check.check();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    command = ["bash", "-c", 'ulimit -Sn 24; exec "$@"', "-", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout) >= 64, done.stderr
