"""What README and docs/ tell people to type: every command parses, and the tutorials run."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from unittest import mock

import pytest

from experiments import cli, recipes
from experiments.verbs import common
from launch.config import ConfigError
from tests.conftest import ROOT

PAGES = [
    pathlib.Path(ROOT, "README.md"),
    pathlib.Path(ROOT, "CONTRIBUTING.md"),
    *sorted(pathlib.Path(ROOT, "docs").rglob("*.md")),
]
TUTORIALS = sorted(pathlib.Path(ROOT, "docs", "tutorials").glob("*.md"))
# words that a command holds in place of what the reader has
ELLIPSIS = re.compile(r"\.\.\.|\bNAME\b|\bVERB\b|=DIR\b|=FILE\b|=OUT\b")


def blocks(text: str):
    """(language, body) of every fenced block, and of every indented one as ""."""
    for m in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.M | re.S):
        yield m[1], m[2]
    outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for m in re.finditer(r"(?:^    .*\n|^\n)+", outside, re.M):
        yield "", re.sub(r"^    ", "", m[0], flags=re.M)


def commands(text: str, languages=None) -> list[list[str]]:
    """Every `isoflop VERB ...` of the text, split as a shell does; lines that end in a backslash
    are one.
    """
    found = []
    for language, body in blocks(text):
        if languages is None or language in languages:
            found += re.findall(r"(?:^|&& )\$? *(isoflop .*)$", re.sub(r"\\\n *", "", body), re.M)
    if languages is None:
        found += re.findall(r"`(isoflop [a-z]+ [^`]*)`", re.sub(r"(?s)```.*?```", "", text))
    return [
        argv[1:]
        for line in found
        if len(argv := shlex.split(line.partition("  ")[0].replace("\n", " "), comments=True)) > 1
    ]


def every_command():
    return [
        pytest.param(argv, id=f"{page.name}: {' '.join(argv)[:90]}")
        for page in PAGES
        for argv in commands(page.read_text())
        if not ELLIPSIS.search(" ".join(argv)) and re.fullmatch("[a-z]+", argv[0])
    ]


def settings(verb, fv):
    """Recipe and fields, read as the verb reads them."""
    if "config" not in fv or not fv.config or fv.config.endswith(".py"):
        return
    single = isinstance(recipes.load(fv.config), common.Job)
    assert single or verb != "train", f"{fv.config} is a sweep"
    assert not single or verb != "sweep", f"{fv.config} is a single run"
    common.load(fv)


def parse(verb, doc, fv, argv, body):
    """In place of cli.run: flags, recipe and fields are read, and nothing is done."""
    rest = fv(["isoflop", *argv])[1:]
    assert not rest, f"not flags: {rest}"
    settings(verb, fv)
    assert verb not in ("train", "sweep") or fv.workdir, f"{verb} wants --workdir"
    return 0


@pytest.mark.parametrize("argv", every_command())
def test_every_command_parses(argv, monkeypatch):
    assert argv[0] in cli.VERBS, f"no verb {argv[0]}"
    monkeypatch.setattr(cli, "run", parse)
    assert import_module(f"experiments.verbs.{argv[0]}").main(argv[1:]) == 0


def test_commands_are_found_and_wrong_ones_are_seen(monkeypatch):
    """The test above is not empty, and a stale flag, field or recipe fails it."""
    assert len(every_command()) > 60
    monkeypatch.setattr(cli, "run", parse)
    wrong = [
        ("train --config=tiny_dens", ConfigError),
        ("train --config=tiny_dense --set model.d_modell=8", ConfigError),
        ("train --config=tiny_dense --wordir=x", cli.flags.Error),
        ("train --config=tiny_dense", AssertionError),
        ("train --config=quickstart --workdir=x", AssertionError),
        ("sweep --config=quickstart --workdir=x stray", AssertionError),
    ]
    for line, error in wrong:
        verb, *argv = line.split()
        with pytest.raises(error):
            import_module(f"experiments.verbs.{verb}").main(argv)
    text = "```bash\nisoflop count \\\n    --config=tiny_moe\n```\n\nand `isoflop status runs/x`\n"
    assert commands(text) == [["count", "--config=tiny_moe"], ["status", "runs/x"]]


def test_no_line_is_scrolled():
    """README, the pages and the changelog stay within 100 columns; tables may be wider."""
    wide = [
        f"{page.name}:{i}"
        for page in (*PAGES, pathlib.Path(ROOT, "CHANGELOG.md"))
        for i, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > 100 and not (line.startswith("|") and page.name != "README.md")
    ]
    assert not wide, wide


def test_links_of_the_root_lead_somewhere():
    """mkdocs checks the pages; these are read on the repository's own page."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md"):
        text = pathlib.Path(ROOT, name).read_text()
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert os.path.exists(os.path.join(ROOT, target)), f"{name}: {target}"


def test_the_log_has_a_table_of_contents():
    """Every finding is linked once, newest day first."""
    text = pathlib.Path(ROOT, "LOG.md").read_text()
    days = re.findall(r"^## (\d{4}-\d\d-\d\d)", text, re.M)
    assert days == sorted(days, reverse=True) and len(set(days)) == len(days)
    linked = re.findall(r"^    - \[.*\]\(#(.*)\)$", text, re.M)
    anchors = [
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        for title in re.findall(r"^### (.*)$", text, re.M)
    ]
    assert linked == anchors and len(set(anchors)) == len(anchors)


SMALL = {
    "train": ["--set=horizon.steps=200"],
    "sweep": [
        "--set=sweep.sizes=8,16,24",
        "--set=sweep.budgets=2e8",
        "--set=sweep.replicate_size=16",
        "--set=sweep.replicate_budget=2e8",
        "--set=sweep.replicate_seeds=3",
        "--set=model.seq_len=32",
        "--bootstrap=20",
    ],
    "fit": ["--bootstrap=40"],
    "report": ["--bootstrap=20"],
}


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=[p.stem for p in TUTORIALS])
def test_a_tutorial_runs(page, tmp_path):
    """Its blocks in order, as a reader would, in an empty folder; models and budgets small."""
    (tmp_path / "notes").mkdir()
    for i in range(4):
        shutil.copy(os.path.join(ROOT, "LOG.md"), tmp_path / "notes" / f"{i}.md")
    env = {**os.environ, "PYTHONPATH": ROOT, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}

    def run(*argv):
        done = subprocess.run(
            [sys.executable, *argv], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, (argv, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    ran = 0
    for language, body in blocks(page.read_text()):
        if language == "python":
            run("-c", body)
        if language != "bash":
            continue
        for verb, *argv in commands(f"```bash\n{body}```\n"):
            if "--engine=slurm" in argv:  # tests/launch/test_slurm.py submits one
                argv = [*argv, "--engine=local", "--set=where.workers=2"]
            assert run("-m", "experiments.start", verb, *argv, *SMALL.get(verb, []))
            ran += 1
    assert ran >= 3
    for report in tmp_path.rglob("report.html"):
        assert report.stat().st_size > 10_000


def test_the_reference_names_every_flag_and_field():
    """The pages that the site makes from the code hold every flag and every field."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    from dataclasses import fields

    from launch.config import Where
    from model import parts
    from model.config import Model

    with mock.patch.object(sys, "path", [os.path.join(ROOT, "docs"), *sys.path]):
        pages = import_module("reference_pages")
    made = {path: make() for path, make in pages.PAGES.items()}
    assert all(f"## {verb}\n" in made["reference/commands.md"] for verb in cli.VERBS)
    for prefix, cls in (("model.", Model), ("where.", Where)):
        for f in fields(cls):
            if f.name not in ("slurm", "sky"):
                assert f"| `{prefix}{f.name}` |" in made["reference/fields.md"], f.name
    for cls, name in parts.NAMES.items():
        for f in fields(cls):
            assert f"| `model.{name}.{f.name}` |" in made["reference/fields.md"], f.name
    assert all(f"## {name}\n" in made["reference/recipes.md"] for name in recipes.RECIPES)


@pytest.mark.slow
def test_the_mixer_of_the_page_keeps_the_contract(tmp_path):
    """docs/add_an_architecture.md as a reader would follow it: one new file and one registry line,
    and every test over the registries.
    """
    for package in ("model", "launch", "data", "experiments", "tests"):
        shutil.copytree(os.path.join(ROOT, package), tmp_path / package)
    shutil.copy(os.path.join(ROOT, "setup.cfg"), tmp_path)
    page = pathlib.Path(ROOT, "docs/add_an_architecture.md").read_text()
    code, line = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    place, head = code.partition("\n")[0].removeprefix("# "), tmp_path / "model/registry.py"
    (tmp_path / place).write_text(code)
    table = head.read_text().replace("MIXERS = {\n", "MIXERS = {\n    " + line.strip() + "\n")
    imported = "from model.mixers.mean import Mean\n"
    head.write_text(table.replace("\nMIXERS", imported + "\nMIXERS", 1))
    which = [f"tests/model/test_{name}.py" for name in ("model", "counts", "parts", "documents")]
    command = [sys.executable, "-m", "pytest", "-v", "-n", "0", *which, "-k", "mean or part"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 30, done.stdout[-500:]
