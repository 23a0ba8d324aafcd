"""A workdir from a stranger: whatever its names and records hold, `status`, `fit` and `report` run
none of it, end with an answer or one line, and put no markup into a page and no command into a
terminal.
"""

import ast
import json
import os
import pathlib

import pytest

from experiments import cli
from launch import files
from launch.runs import ledger, record
from tests.conftest import ROOT
from tests.laws.made_up_records import MARKUP, calls, result, write
from tests.test_house import modules

ESCAPE = "\x1b]0;owned\x07\x1b[2J[red]x[/red]"


def test_a_sound_folder_is_read(tmp_path, capsys):
    w = write(tmp_path / "w")
    assert calls(w, capsys) == [0, 0, 0]
    assert cli.main(["status", str(w), "--format=json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (
        said["counts"] == {"done": 6, "running": 0, "waiting": 1, "failed": 0, "diverged": 0}
        and said["left_s"] is None
    )


def test_markup_and_terminal_commands_stay_text(tmp_path, capsys):
    rows = [result(i) for i in range(6)]
    for r in rows:
        r["corpus"] = r["commit"] = r["device"]["kind"] = r["tags"]["sweep"] = MARKUP + ESCAPE
        r["versions"], r["fingerprints"] = {MARKUP: MARKUP}, {"corpus": MARKUP, MARKUP: "x"}
    rows[0] |= {"status": "diverged", "why": MARKUP + ESCAPE}
    w = write(tmp_path / "w", rows, {"sweep": {"name": MARKUP + ESCAPE}})
    assert calls(w, capsys) == [0, 0, 0]
    page = (w / "report.html").read_text()
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    for family in (MARKUP + ESCAPE, r"$\frac{$", ""):  # drawn into figures
        assert calls(write(tmp_path / "w", [result(0) | {"family": family}]), capsys) == [0, 2, 2]


def test_hostile_names(tmp_path, capsys):
    w = write(
        tmp_path / "w",
        extra={
            "runs": [
                {"id": "../../etc"},
                {"id": MARKUP},
                {"id": 3},
                None,
                {"id": f"{0:012x}", "family": [ESCAPE]},
            ]
        },
    )
    for name in (ESCAPE.replace("/", ""), "<b>", "..x", "$(touch owned)", "000000000000.py", "-rf"):
        (w / "runs" / name).mkdir()
        (w / "runs" / name / record.RESULT).write_text(json.dumps(result(0)))
    (w / "runs" / "conftest.py").write_text("raise SystemExit(9)")
    (w / "sitecustomize.py").write_text("raise SystemExit(9)")
    assert calls(w, capsys) == [0, 0, 0]
    assert cli.main(["status", str(w), "--format=json"]) == 0
    assert [r["id"] for r in json.loads(capsys.readouterr().out)["runs"]] == [f"{0:012x}"]


DEEP = '{"id": ' + "[" * 100_000 + "]" * 100_000 + "}"


FILES = {
    "deep": lambda p: p.write_text(DEEP),
    "long": lambda p: (p.write_text("{"), os.truncate(p, files.LARGEST + 1)),
    "no text": lambda p: p.write_bytes(b"\x80\x04\x95cos\nsystem\n"),
    "a list": lambda p: p.write_text("[1]"),
    "NaN": lambda p: p.write_text(json.dumps(result(0) | {"epochs": float("nan")})),
    "infinity": lambda p: p.write_text(
        json.dumps(result(0)).replace('"epochs": 0.1', '"epochs": 1e999')
    ),
    "many digits": lambda p: p.write_text(
        json.dumps(result(0)).replace('"epochs": 0.1', '"epochs": ' + "9" * 5000)
    ),
    "a pipe": lambda p: os.mkfifo(p),
    "a device": lambda p: p.symlink_to("/dev/zero"),
    "a loop": lambda p: p.symlink_to(p),
    "nowhere": lambda p: p.symlink_to("/nowhere"),
    "a folder": lambda p: p.mkdir(),
}


@pytest.mark.parametrize("name", list(FILES))
def test_hostile_files(name, tmp_path, capsys):
    """As a result and as sweep.json: the run counts as failed, and fit and report name the file;
    nothing hangs.
    """
    w = write(tmp_path / "w")
    path = w / "runs" / f"{0:012x}" / record.RESULT
    path.unlink()
    FILES[name](path)
    assert calls(w, capsys) == [0, 2, 2]
    s = ledger.standing(str(path.parent))
    assert s.state == "failed" and "damaged" in s.why
    for other in (record.STATUS, record.FAILURE, record.METRICS):
        (target := w / "runs" / f"{1:012x}" / other).unlink(missing_ok=True)
        FILES[name](target)
    (w / "runs" / f"{6:012x}" / ".lease").mkdir(parents=True)
    FILES[name](w / "runs" / f"{6:012x}" / ".lease" / "1.json")
    assert calls(w, capsys, ["status"]) == [0]
    (w / "sweep.json").unlink()
    FILES[name](w / "sweep.json")
    calls(w, capsys)


def test_nothing_is_unpickled_or_evaluated():
    """No pickle, no eval, no exec, no numpy load without allow_pickle=False, no YAML that makes
    objects, in any module of the product.
    """
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(pathlib.Path(path).read_text())):
            where = f"{os.path.relpath(path, ROOT)}:{getattr(node, 'lineno', 0)}"
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            wrong += [
                f"{where} imports {n}"
                for n in names
                if n
                and n.split(".")[0]
                in ("pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib")
            ]
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "os.system") or called.endswith(
                ("read_pickle", "yaml.load")
            ):
                wrong.append(f"{where} calls {called}")
            if called in (
                "np.load",
                "numpy.load",
                "np.fromfile",
            ) and "allow_pickle=False" not in ast.unparse(node):
                wrong.append(f"{where} calls {called} without allow_pickle=False")
            if any(
                k.arg in ("allow_pickle", "shell")
                and not (isinstance(k.value, ast.Constant) and k.value.value is False)
                for k in node.keywords
            ):
                wrong.append(f"{where} calls {called} with pickle or a shell")
    assert not wrong, wrong
