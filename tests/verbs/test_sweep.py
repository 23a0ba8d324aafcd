"""A whole sweep through its processes: killed, continued, reported, and looked at in a browser."""

import dataclasses
import html.parser
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments import cli, recipes
from experiments.planning import grid
from experiments.report import page
from launch import config, files
from launch.runs import checkpoint, lease, record
from tests.conftest import QUICK, ROOT

SMALL = [
    "--config=quickstart",
    "--set=sweep.sizes=8,16,24",
    "--set=sweep.budgets=1e9,2e9",
    "--set=sweep.replicate_size=16",
    "--set=sweep.replicate_budget=1e9",
    "--set=data.validation_windows=16",
    "--set=model.seq_len=32",
    "--bootstrap=40",
]
RUNS = 16


def environment():
    """Six programs are compiled as in the suite; as a user would: tests/launch/test_killed.py."""
    return {**os.environ, "XLA_FLAGS": QUICK, "ISOFLOP_XLA_FLAGS": QUICK, "PYTHONPATH": ROOT}


def start(workdir, *more):
    argv = [sys.executable, "-m", "experiments.verbs.sweep", *SMALL, f"--workdir={workdir}", *more]
    return subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(workdir):
    runs = os.path.join(workdir, "runs")
    return sorted(
        r
        for r in (os.listdir(runs) if os.path.isdir(runs) else [])
        if os.path.exists(os.path.join(runs, r, "result.json"))
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep whose driver is killed with -9 when some runs are done, then typed again."""
    workdir = str(tmp_path_factory.mktemp("sweep") / "work")
    first = start(workdir)
    deadline = time.time() + 300
    while len(finished(workdir)) < 4 and first.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = {
        r: os.stat(os.path.join(workdir, "runs", r, "result.json")).st_mtime_ns
        for r in finished(workdir)
    }
    second = start(workdir, "--format=json")
    out, err = second.communicate(timeout=500)
    return workdir, before, second.returncode, out, err


def test_killed_and_typed_again(sweep):
    workdir, before, status, out, err = sweep
    assert status == 0, err
    assert 4 <= len(before) < RUNS
    done = finished(workdir)
    assert len(done) == RUNS == len(set(done))
    for r, t in before.items():  # none twice
        assert os.stat(os.path.join(workdir, "runs", r, "result.json")).st_mtime_ns == t
    answer = json.loads(out)
    assert answer["runs"] == RUNS and answer["failed"] == [] and os.path.exists(answer["report"])
    assert f"{RUNS}/{RUNS} runs" in err and err.count(" runs  ") == RUNS - len(before)


@pytest.mark.slow
def test_sigterm_of_a_sweep(tmp_path):
    """Told to stop, the workers save what they have: status 75, one line, and the open runs go on
    from their checkpoints.
    """
    process = start(tmp_path / "w", "--set=sweep.budgets=3e11", "--set=sweep.replicate_budget=3e11")

    def statuses():
        return [json.loads(p.read_text()) for p in (tmp_path / "w").glob(f"runs/*/{record.STATUS}")]

    deadline = time.time() + 120
    while (
        not any(s["phase"] == "step" for s in statuses())
        and time.time() < deadline
        and process.poll() is None
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "told to stop" in err.splitlines()[-1], err
    saved = [checkpoint.steps(str(p)) for p in (tmp_path / "w" / "runs").iterdir()]
    assert any(saved) and not finished(tmp_path / "w")


def results(workdir):
    return [
        json.loads(pathlib.Path(workdir, "runs", r, "result.json").read_text())
        for r in finished(workdir)
    ]


def test_every_step_stands_once(sweep):
    for r in results(sweep[0]):
        steps = [
            json.loads(line)["step"]
            for line in (
                pathlib.Path(sweep[0], "runs", r["id"], "metrics.jsonl").read_text().splitlines()
            )
        ]
        assert steps == sorted(set(steps)) and steps[-1] == r["steps"]


def test_pairs_share_tokens_order_and_seed(sweep):
    by_cell = {}
    for r in results(sweep[0]):
        by_cell.setdefault((r["tags"]["size"], r["tags"]["budget"], r["run"]["seed"]), {})[
            r["family"]
        ] = r
    assert len(by_cell) == RUNS // 2
    for dense, moe in ((c["dense"], c["moe"]) for c in by_cell.values()):
        assert (
            dense["training_tokens"] == moe["training_tokens"]
            and dense["run"]["data"] == moe["run"]["data"]
        )
        assert (
            moe["parameters"]["active"] - dense["parameters"]["active"]
            == moe["parameters"]["groups"]["router"]
        )
        assert abs(dense["flops"]["matmul"] / dense["tags"]["budget"] - 1) < 0.05
        assert dense["fingerprints"] == moe["fingerprints"]


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            v
            for k, v in attrs
            if k in ("src", "href", "xlink:href", "action") and v and not v.startswith("#")
        ]

    def handle_data(self, data):
        self.text.append(data)


def parsed(path):
    p = Page()
    p.feed(pathlib.Path(path).read_text(encoding="utf-8"))
    return p


def test_report_is_offline_and_complete(sweep):
    p = parsed(os.path.join(sweep[0], "report.html"))
    assert (
        p.tags.count("svg") in (6, 7, 8)
        and p.tags.count("table") >= 8
        and "script" not in p.tags
        and "img" not in p.tags
        and not p.links
    )
    text = " ".join(p.text)
    for words in (
        "IsoFLOP curves",
        "Compute-optimal size and tokens",
        "Loss against compute",
        "Dense against MoE",
        "Expert load",
        "Parametric law",
        "The careful reader's checklist",
        "Which parameters are N?",
        "Data fingerprint",
        "(unverified)",
        "Learning rates",
        "Predicted against actual",
        "Runs",
        "Excluded, and why",
        "validation loss (nats/token)",
        "max / mean expert load",
        *finished(sweep[0]),
    ):
        assert words in text, words


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_report_in_chromium(sweep, tmp_path):
    argv = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path}",
        "--window-size=1100,3000",
        f"--screenshot={tmp_path / 'shot.png'}",
        "--virtual-time-budget=3000",
        f"file://{sweep[0]}/report.html",
    ]
    subprocess.run(argv, capture_output=True, timeout=120, check=True)
    import matplotlib.image

    shot = matplotlib.image.imread(tmp_path / "shot.png")
    assert shot.shape[1] == 1100
    # the figures drew: blue of the dense family and orange of the other are on the page
    for colour in ((0x3B, 0x6F, 0xB6), (0xD1, 0x60, 0x2A)):
        near = (abs(shot[..., :3] - [c / 255 for c in colour]) < 0.04).all(-1)
        assert near.sum() > 500


def test_markup_in_records_stays_text(sweep):
    rows = results(sweep[0])
    rows[0]["family"], rows[0]["corpus"] = "dense", "<script>alert(1)</script>"
    rows[1]["device"] = {"kind": "<img src=x onerror=alert(1)>"}
    analysis = json.loads(pathlib.Path(sweep[0], "analysis.json").read_text())
    text = page.render("<b>x</b>", rows, analysis, {})
    assert "<script" not in text and "<img" not in text and "&lt;script&gt;" in text


def test_fit_and_report_verbs(sweep, capsys):
    assert (
        cli.main(["fit", f"--workdir={sweep[0]}", "--bootstrap=20", "--n=total", "--format=json"])
        == 0
    )
    a = json.loads(capsys.readouterr().out)
    assert a["n_convention"] == "total" and set(a["families"]) == {"dense", "moe"}
    assert cli.main(["report", f"--workdir={sweep[0]}", "--bootstrap=20"]) == 0
    assert "report.html" in capsys.readouterr().out


def test_another_sweep_is_refused(sweep, capsys):
    before = finished(sweep[0])
    assert cli.main(["sweep", *SMALL, "--set=sweep.budgets=1e9,3e9", f"--workdir={sweep[0]}"]) == 2
    err = capsys.readouterr().err
    assert "belongs to another sweep" in err and "sweep.budgets" in err and err.count("\n") == 1
    assert finished(sweep[0]) == before


def test_damaged_result_is_named_and_kept(sweep, capsys, tmp_path):
    copy = shutil.copytree(sweep[0], tmp_path / "copy")
    victim = finished(copy)[3]
    path = os.path.join(copy, "runs", victim, "result.json")
    pathlib.Path(path).write_text("{")
    assert cli.main(["sweep", *SMALL, f"--workdir={copy}"]) == 2
    err = capsys.readouterr().err
    assert (
        victim in err
        and "move it away" in err
        and err.count("\n") == 1
        and pathlib.Path(path).read_text() == "{"
    )


def test_quickstart_plan_is_fair():
    job = recipes.load("quickstart")
    runs = grid.make(job, "cpu").runs
    assert (
        len(job.sweep.budgets) >= 3
        and len(job.sweep.sizes) >= 5
        and set(job.sweep.families) == {"dense", "moe"}
    )
    assert len({p.id for p in runs}) == len(runs) == 34
    assert len({p.shape for p in runs}) == 10  # one compiled program each
    moe = next(p.run.model for p in runs if p.family == "moe")
    own = moe.routed[0]
    assert (own.n_experts, own.top_k) == (8, 2) and 2 * own.width(moe) == 4 * moe.d_model
    assert (
        len(
            {
                p.run.seed
                for p in runs
                if (p.size, p.budget) == (job.sweep.replicate_size, job.sweep.replicate_budget)
            }
        )
        >= 3
    )


def test_lr_bracket_gives_both_families_the_same_trials():
    runs = grid.make(recipes.load("learning_rate"), "cpu").runs
    trials = {}
    for p in runs:
        trials.setdefault((p.family, p.size, p.budget), []).append(p.lr_multiplier)
    assert len({tuple(sorted(t)) for t in trials.values()}) == 1


def test_adding_budgets_keeps_run_ids():
    job = recipes.load("quickstart")
    more = dataclasses.replace(
        job, sweep=dataclasses.replace(job.sweep, budgets=(*job.sweep.budgets, 8e11))
    )
    assert {p.id for p in grid.make(job, "cpu").runs} < {p.id for p in grid.make(more, "cpu").runs}
    assert config.run_id(grid.make(job, "cpu").runs[0].run) == grid.make(job, "cpu").runs[0].id


@pytest.mark.slow
def test_grid_of_tokens_reports_without_budgets(tmp_path, capsys):
    """No budget, no parabola, the entropy known: the report still stands."""
    argv = [
        "sweep",
        "--config=known_entropy",
        "--set=sweep.sizes=8,16",
        "--set=sweep.tokens=20000,40000",
        "--set=model.seq_len=32",
        "--set=data.validation_windows=16",
        "--set=where.workers=1",
        "--bootstrap=20",
        f"--workdir={tmp_path / 'w'}",
    ]
    assert cli.main(argv) == 0
    assert "above the source's entropy" in capsys.readouterr().out
    text = " ".join(parsed(tmp_path / "w" / "report.html").text)
    assert (
        "Above the source's entropy" in text
        and "Expert load" in text
        and "20k tokens" in text
        and "IsoFLOP curves" not in text
    )


def test_half_written_files_of_a_killed_process_are_no_obstacle(tmp_path):
    run = grid.make(recipes.load("quickstart"), "cpu").runs[0].run
    (tmp_path / f"{files.UNFINISHED}x").write_text("{")
    record.claim(str(tmp_path), run)
    long_ago = time.time() - 2 * lease.ABANDONED
    os.utime(tmp_path / f"{files.UNFINISHED}x", (long_ago, long_ago))
    with lease.Lease(str(tmp_path), 60):
        assert sorted(os.listdir(tmp_path)) == [lease.FOLDER, record.RUN]
    (tmp_path / record.RUN).unlink()
    (tmp_path / "thesis.tex").write_text("kept")
    with pytest.raises(files.RecordError, match="is not empty"):
        record.claim(str(tmp_path), run)
