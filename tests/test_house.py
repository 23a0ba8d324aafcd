"""The house keeps its shape: imports point down, data/ knows no jax, the base install no tensorflow
or torch.
"""

import ast
import configparser
import os
import pathlib
import re
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
                wrong.append(f"{os.path.relpath(path, ROOT)} imports {name}")
            if here == "data" and name in ("jax", "flax", "optax"):
                wrong.append(f"{os.path.relpath(path, ROOT)} imports {name}")
            if here == "model" and name in ("absl", "os", "sys"):
                wrong.append(f"{os.path.relpath(path, ROOT)} imports {name}")
    assert not wrong, wrong


def edges() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, at its top or in a function."""
    names = {}
    for path in modules():
        parts = pathlib.Path(path).relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    out = {}
    for name, path in names.items():
        found = set()
        for node in ast.walk(ast.parse(pathlib.Path(path).read_text())):
            if isinstance(node, ast.Import):
                found |= {a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                # a package too: what stands in its __init__ runs first
                found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Lazy":
                found.add(node.args[0].value)
        out[name] = found & set(names) - {name}
    return out


def test_no_import_circle():
    """Nor one through functions. What nothing of ours is imported from falls away, again and again;
    a circle is what stays.
    """
    left = edges()
    while free := [name for name, found in left.items() if not found & set(left)]:
        for name in free:
            del left[name]
    assert not left, {name: sorted(found & set(left)) for name, found in left.items()}


LOOSE = {"experiments": {"cli", "start", "sweep"}, "launch": {"config", "files", "overrides"}}
# what a room of laws/ may not know: points come to a law from outside, and the evidence does not
# depend on what is fitted to it
UNKNOWN = {
    "experiments.laws.fitting": ("laws.runs", "laws.comparisons", "laws.published", "launch"),
    "experiments.laws.runs": ("laws.fitting", "laws.comparisons", "laws.published"),
    "experiments.laws.comparisons": ("laws.published",),
    "launch.huggingface": ("launch.runs", "launch.engines"),
    "launch.devices": ("launch.runs", "launch.engines", "launch.huggingface"),
    "launch.runs": ("launch.engines",),
}


def room(module: str) -> str:
    """The folder a module stands in; loose files, and the doors of laws/, are rooms of one."""
    parts = module.split(".")
    if parts[:2] == ["experiments", "laws"]:
        return ".".join(parts[: 3 if len(parts) > 3 else len(parts)])
    return ".".join(parts[: 1 if parts[0] in ("model", "data") else 2])


def test_rooms_form_no_circle():
    """Between rooms as between files: what a room imports never leads back to it."""
    found = {}
    for module, others in edges().items():
        found.setdefault(room(module), set()).update(room(o) for o in others)
    left = {name: others - {name} for name, others in found.items()}
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    assert not left, {name: sorted(others & set(left)) for name, others in left.items()}


def test_rooms_know_no_more_than_they_should():
    for module, others in edges().items():
        for place, forbidden in UNKNOWN.items():
            if module.startswith(place + "."):
                for name in forbidden:
                    full = name if name.startswith("launch") else f"experiments.{name}"
                    assert not [o for o in others if (o + ".").startswith(full + ".")], module


def test_every_door_says_what_is_behind_it():
    """And no file lies loose where a room would do."""
    for package in FLOOR:
        for folder, _, files in os.walk(os.path.join(ROOT, package)):
            names = {f.removesuffix(".py") for f in files if f.endswith(".py")}
            if not names:
                continue
            said = ast.get_docstring(ast.parse(pathlib.Path(folder, "__init__.py").read_text()))
            assert said and "." in said, folder
    for package, allowed in LOOSE.items():
        loose = {p.stem for p in pathlib.Path(ROOT, package).glob("*.py")} - {"__init__"}
        assert loose == allowed, package


MADE_UP = {"model/mixers/mean.py"}  # the example of docs/add_an_architecture.md


def test_pages_name_files_that_exist():
    """Where a new thing goes, and what to run after a change, is true after a move."""
    root, wrong = pathlib.Path(ROOT), []
    for page in (root / "CONTRIBUTING.md", root / "README.md", *root.glob("docs/**/*.md")):
        text = re.sub(  # test_{a,b}.py, as a shell reads it
            r"([\w/]+)\{([\w,]+)\}\.py",
            lambda m: " ".join(f"{m[1]}{name}.py" for name in m[2].split(",")),
            page.read_text(),
        )
        named = re.findall(r"\b(?:model|data|launch|experiments|tests)/[\w/]*(?:\.py)?", text)
        wrong += [f"{page.name}: {n}" for n in {*named} - MADE_UP if not (root / n).exists()]
    assert not wrong, wrong


# a part that is built from another: latent attention has a norm of its own, whatever the model's;
# shared experts are a dense MLP
BUILT_FROM = {"model.mixers.latent": {"model.norms"}, "model.mlps.moe": {"model.mlps.dense"}}


def test_parts_know_no_other_parts():
    """And what all layers share knows no part: model/registry.py alone does, and who reads it."""
    from model import registry

    tables = (registry.MIXERS, registry.MLPS, registry.POSITIONS, registry.NORMS)
    parts = {cls.__module__ for table in tables for cls in table.values()}
    found = edges()
    for module in parts:
        others = (found[module] & parts) - {module} - BUILT_FROM.get(module, set())
        assert others <= {"model.positions"}, module  # of which a mixer may have its own
        assert "model.registry" not in found[module]
    for shared in ("config", "block", "lm", "account", "step", "loss", "sample"):
        known = found[f"model.{shared}"] & {*parts, "model.registry"}
        assert known <= {"model.norms"}, shared  # account: what any norm keeps


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


@pytest.mark.parametrize("limit,what", [(350, "lines in a file"), (70, "lines in a function")])
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
