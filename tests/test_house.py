"""The house keeps its shape: imports point down, data/ knows no jax, the base install no tensorflow
or torch.
"""

import ast
import configparser
import os
import pathlib
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FLOOR = {"model": 0, "data": 0, "launch": 1, "experiments": 2}


def modules():
    for package in FLOOR:
        for folder, _, files in os.walk(os.path.join(ROOT, package)):
            yield from (os.path.join(folder, f) for f in files if f.endswith(".py"))


def imported(path):
    for node in ast.walk(ast.parse(pathlib.Path(path).read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_imports_point_down():
    wrong = []
    for path in modules():
        here = os.path.relpath(path, ROOT).split(os.sep)[0]
        for name in imported(path):
            if name in FLOOR and name != here and FLOOR[name] >= FLOOR[here]:
                # launch/config.py and launch/train.py introduce data to model; they do not know
                # each other
                wrong.append(f"{os.path.relpath(path, ROOT)} imports {name}")
            if here == "data" and name in ("jax", "flax", "optax"):
                wrong.append(f"{os.path.relpath(path, ROOT)} imports {name}")
            if here == "model" and name in ("absl", "os", "sys"):
                wrong.append(f"{os.path.relpath(path, ROOT)} imports {name}")
    assert not wrong, wrong


def test_data_does_not_load_jax():
    code = (
        "import sys, data.pipeline, data.sources, data.tokenizers; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_base_install_is_lean():
    cfg = configparser.ConfigParser()
    cfg.read(os.path.join(ROOT, "setup.cfg"))
    names = [
        line.split(">")[0].split("<")[0].strip()
        for line in cfg["options"]["install_requires"].splitlines()
        if line.strip() and not line.startswith("#")
    ]
    for wanted in (
        "jax",
        "flax",
        "optax",
        "orbax-checkpoint",
        "sentencepiece",
        "tensorflow-datasets",
        "absl-py",
    ):
        assert wanted in names
    assert not {"tensorflow", "torch"} & set(names)


@pytest.mark.parametrize("limit,what", [(450, "lines in a file"), (90, "lines in a function")])
def test_rooms_stay_small(limit, what):
    large = []
    for path in modules():
        text = pathlib.Path(path).read_text()
        if what == "lines in a file":
            if text.count("\n") > limit:
                large.append(path)
            continue
        large += [
            f"{path}:{n.lineno}"
            for n in ast.walk(ast.parse(text))
            if isinstance(n, ast.FunctionDef) and n.end_lineno - n.lineno > limit
        ]
    assert not large, large
