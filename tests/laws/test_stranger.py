"""A workdir from a stranger: whatever its names and records hold, `status`, `fit` and `report` run
none of it, end with an answer or one line, and put no markup into a page and no command into a
terminal.
"""

import ast
import contextlib
import copy
import json
import os
import pathlib

import pytest

from experiments import cli
from experiments.verbs import common
from launch import files
from launch.files import RecordError
from launch.runs import ledger, record, valid
from model import account
from tests.conftest import ROOT
from tests.test_house import modules

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
ESCAPE = "\x1b]0;owned\x07\x1b[2J[red]x[/red]"


def result(i: int) -> dict:
    """A sound record of run i: three sizes at two budgets."""
    size, budget = (8, 16, 32)[i % 3], (1e9, 2e9)[i // 3]
    n = 30 * size**2
    tokens = round(budget / 6 / n)
    counts = {
        k: n for k in ("total", "active", "non_embedding", "active_non_embedding", "multiplied")
    }
    return {
        "id": f"{i:012x}",
        "family": "dense",
        "tags": {
            "size": size,
            "budget": budget,
            "role": "grid",
            "lr_multiplier": 1.0,
            "sweep": "s",
        },
        "status": "finished",
        "why": None,
        "run": {
            "model": {"seq_len": 32, "d_model": size, "n_layers": 2, "d_ff": 4 * size},
            "optimizer": {"lr": 0.01},
            "seed": 0,
            "batch": 2,
            "dtype": "float32",
        },
        "steps": 100,
        "skipped": 0,
        "parameters": {"groups": {"attention": n}, "embedding": 0, **counts},
        "training_tokens": tokens,
        "dataset_tokens": 10**7,
        "epochs": 0.1,
        "flops": {k: 6 * n * tokens for k in account.CONVENTIONS},
        "flops_per_token": {k: 6 * n for k in account.CONVENTIONS},
        "train_loss": 2.1,
        "validation": {
            "loss": 1.7 + 40 / n**0.5 + 300 / tokens**0.5,
            "se": 0.01,
            "bits_per_byte": 3.0,
            "excess": None,
            "excess_se": None,
        },
        "tokens_per_s": 1e4,
        "moe": {"auxiliary": 0.0},
        "seconds": {"train": 2.0, "total": 3.0},
        "device": {"kind": "cpu"},
        "versions": {"isoflop": "0", "jax": "0"},
        "commit": "abc",
        "corpus": "text",
        "fingerprints": {"corpus": "c0", "tokenizer": "bytes"},
    }


def write(workdir, results=None, extra=None):
    entries = [
        {"id": f"{i:012x}", "family": "dense", "size": 8, "tokens": 1, "flops": 1e9, "seconds": 1.0}
        for i in range(7)
    ]
    workdir.mkdir(exist_ok=True)
    (workdir / "sweep.json").write_text(
        json.dumps({"id": "0", "sweep": {"name": "s"}, "runs": entries, **(extra or {})})
    )
    for r in results or [result(i) for i in range(6)]:
        folder = workdir / "runs" / r["id"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / record.RESULT).write_text(json.dumps(r))
        (folder / record.METRICS).write_text(
            "".join(
                json.dumps({"step": k, "loss": 3 - k / 10, "tokens": k * 64}) + "\n"
                for k in range(1, 9)
            )
        )
    return workdir


def calls(workdir, capsys, verbs=("status", "fit", "report")) -> list[int]:
    """Statuses of the verbs; each ends with an answer, or with one line."""
    out = []
    for verb in verbs:
        status = cli.main(
            [verb, f"--workdir={workdir}", *(["--bootstrap=20"] if verb != "status" else [])]
        )
        said = capsys.readouterr()
        assert status in (0, 2), (verb, said)
        assert status == 0 or said.out == "" and said.err.count("\n") == 1, (verb, said)
        assert all(c.isprintable() or c == "\n" for c in said.out + said.err), (verb, said)
        out.append(status)
    return out


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


def leaves(value, path=()):
    for k, v in value.items():
        if isinstance(v, dict) and v:
            yield from leaves(v, (*path, k))
        yield (*path, k)


HOSTILE = [
    "1e9",
    MARKUP,
    None,
    [],
    {},
    [[1]],
    True,
    -1,
    0,
    1e300,
    float("nan"),
    float("inf"),
    "x" * 20_000,
]


@pytest.mark.parametrize("path", list(leaves(result(0))), ids=".".join)
def test_wrong_values_are_named_or_borne(path, tmp_path):
    """Every field of a record by every kind of wrong value: it is said to be damaged, or the
    analysis bears it.
    """
    from experiments.laws import sweep_analysis

    for value in HOSTILE:
        rows = [result(i) for i in range(6)]
        r = rows[0]
        at = r
        for k in path[:-1]:
            at = at[k]
        at[path[-1]] = copy.deepcopy(value)
        if valid.flaw(r) is None:
            with contextlib.suppress(RecordError), common.complete():
                sweep_analysis.analyse(rows, "multiplied", "matmul", 20)


@pytest.mark.slow
def test_wrong_values_reach_no_page(tmp_path, capsys):
    """The same through `report`, one field in six. About three minutes."""
    for path in list(leaves(result(0)))[::6]:
        for i, value in enumerate(HOSTILE[:10]):
            rows = [result(k) for k in range(6)]
            at = rows[0]
            for k in path[:-1]:
                at = at[k]
            at[path[-1]] = value
            rows[0]["id"] = f"{0:012x}"
            calls(write(tmp_path / f"{'.'.join(path)}{i}", rows), capsys, ["report"])


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
