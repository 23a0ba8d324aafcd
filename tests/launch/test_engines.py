"""Leases, the ledger, the contract of every engine, and what each does on its own: no cluster
needed here.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
import types

import pytest

from experiments import cli, recipes, sweep
from experiments.planning import grid
from experiments.verbs import status
from launch import config, engines, files
from launch.config import ConfigError, Where
from launch.devices import choice
from launch.engines import attempts, local, processes, skypilot, slurm, worker
from launch.runs import checkpoint, checks, lease, ledger, preempt, record, train
from launch.runs import program as programs
from tests.conftest import ROOT
from tests.launch.test_launch import ALONE, BASE
from tests.laws.made_up_records import result

GRID = [
    "--set=sweep.sizes=8,16",
    "--set=sweep.replicate_size=0",
    "--set=sweep.replicate_budget=0",
    "--set=sweep.replicate_seeds=",
]


# ---- the lease


def forged(folder, number=1, **changes):
    """A lease of somebody else, as a file."""
    root = pathlib.Path(folder, lease.FOLDER)
    root.mkdir(parents=True, exist_ok=True)
    about = {
        "token": "t",
        "host": "elsewhere",
        "pid": 7,
        "machine": "",
        "born": "",
        "seconds": 60,
        "renewed": 0,
    }
    (root / f"{number}.json").write_text(json.dumps(about | changes))
    return root / f"{number}.json"


def test_one_holder(tmp_path):
    with lease.Lease(str(tmp_path), 60) as mine:
        with (
            pytest.raises(lease.Held, match=f"in use by process {os.getpid()} on"),
            lease.Lease(str(tmp_path), 60),
        ):
            pass
        mine.check()
    assert files.contents(tmp_path) == set()  # given back, and nothing is left
    with lease.Lease(str(tmp_path), 60):
        pass


def test_the_dead_and_the_silent_are_taken_over(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    forged(tmp_path, machine=lease._machine(), pid=int(dead.stdout), born="1")
    with lease.Lease(str(tmp_path), 60) as mine:
        assert [p.name for p in (tmp_path / lease.FOLDER).iterdir()] == ["2.json"]
        mine.check()
    path = forged(tmp_path)
    with pytest.raises(lease.Held, match="process 7 on elsewhere"), lease.Lease(str(tmp_path), 60):
        pass
    os.utime(path, (time.time() - 61,) * 2)
    with lease.Lease(str(tmp_path), 60):
        pass


def test_a_lease_is_renewed_and_its_loss_is_noticed(tmp_path):
    with lease.Lease(str(tmp_path), 0.2) as mine:
        path = tmp_path / lease.FOLDER / "1.json"
        before = path.stat().st_mtime_ns
        time.sleep(0.3)
        assert path.stat().st_mtime_ns > before
        mine.watch()
        forged(tmp_path, 2)
        time.sleep(0.2)
        for look in (mine.watch, mine.check):
            with pytest.raises(lease.Lost, match="taken over by process 7 on elsewhere"):
                look()
    assert lease.holder(str(tmp_path)).token == "t"  # the other's is left alone


@pytest.mark.parametrize("gone", ["removed", "truncated"])
def test_a_lease_that_is_gone_is_lost(gone, tmp_path):
    with lease.Lease(str(tmp_path), 60) as mine:
        path = tmp_path / lease.FOLDER / "1.json"
        path.unlink() if gone == "removed" else os.truncate(path, 0)
        with pytest.raises(lease.Lost):
            mine.check()


@pytest.mark.parametrize("links", [True, False], ids=["disk", "bucket"])
def test_two_results_may_not(links, tmp_path, monkeypatch):
    """With links, and on a mount that has none."""
    if not links:
        monkeypatch.setattr(
            os, "link", lambda *a: (_ for _ in ()).throw(OSError(95, "Operation not supported"))
        )
    else:  # another's appears between the look and the end
        monkeypatch.setattr(os.path, "exists", lambda path: False)
    path = str(tmp_path / "x.json")
    assert files.write_once(path, "a") and not files.write_once(path, "b")
    assert pathlib.Path(path).read_text() == "a" and os.listdir(tmp_path) == ["x.json"]


SMALL = dataclasses.replace(ALONE, checkpoint_every=4, steps_per_dispatch=2)


def test_who_lost_the_run_writes_neither_checkpoint_nor_result(tmp_path):
    """Another takes the run over in mid-training: the first one stops before its next save."""

    def progress(done, total):
        if done == 6:
            while checkpoint.steps(str(tmp_path / "r")) != [4]:
                time.sleep(0.01)
            forged(tmp_path / "r", 5)

    with pytest.raises(lease.Lost):
        train.train(BASE, SMALL, str(tmp_path / "r"), progress)
    assert (
        os.listdir(tmp_path / "r" / checkpoint.FOLDER) == ["4"]
        and record.result(str(tmp_path / "r")) is None
    )


def test_who_lost_the_run_after_its_last_save_puts_no_result(tmp_path):
    def progress(done, total):
        if done == total:
            forged(tmp_path / "r", 5)

    with pytest.raises(lease.Lost):
        train.train(
            BASE,
            dataclasses.replace(SMALL, checkpoint_every=0, keep_final=False),
            str(tmp_path / "r"),
            progress,
        )
    assert record.result(str(tmp_path / "r")) is None


def test_the_first_of_two_results_stands(tmp_path):
    """Another finished the run while this one was stopped between its last look and the end."""
    stands = result(0) | {"id": config.run_id(checks.resolve(BASE, "cpu"))}

    def progress(done, total):
        if done == total:
            (tmp_path / "r" / record.RESULT).write_text(json.dumps(stands))

    assert (
        train.train(BASE, SMALL, str(tmp_path / "r"), progress)
        == stands
        == record.result(str(tmp_path / "r"))
    )


def test_a_lost_run_json_is_written_again_and_a_foreign_folder_is_not_taken(tmp_path):
    record.claim(str(tmp_path / "r"), BASE)
    (tmp_path / "r" / record.RUN).unlink()
    (tmp_path / "r" / record.METRICS).write_text("")
    record.claim(str(tmp_path / "r"), BASE)
    assert files.read_json(str(tmp_path / "r" / record.RUN), "run")["id"] == config.run_id(BASE)


# ---- the worker


def attempt(tmp_path, monkeypatch, errors, run=BASE):
    """attempts.attempt where training raises `errors` one after the other. Returns (message,
    accumulate of each attempt).
    """
    seen, left = [], list(errors)

    def trained(run, where, folder, progress, tags, forks):
        seen.append(where.accumulate)
        if left and (error := left.pop(0)):
            raise error
        return {"id": "x", "status": "finished", "seconds": {"total": 1.0}}

    monkeypatch.setattr(train, "train", trained)
    monkeypatch.setattr(programs, "forget", lambda: None)
    monkeypatch.setattr("jax.clear_caches", lambda: None)
    tmp_path.mkdir(exist_ok=True)
    return attempts.attempt(order_of(tmp_path, run)), seen


def order_of(folder, run=BASE) -> dict:
    return worker.order(engines.Task(run, str(folder), {}, 0, 1), ALONE)


FULL = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")


def test_out_of_memory_halves_the_micro_batch_once(tmp_path, monkeypatch):
    two = dataclasses.replace(BASE, batch=8)
    message, seen = attempt(tmp_path / "a", monkeypatch, [FULL], two)
    assert message["kind"] == "finished" and seen == [1, 2]
    message, seen = attempt(tmp_path / "b", monkeypatch, [FULL, FULL, None], two)
    assert (
        message["kind"] == "failed"
        and seen == [1, 2]
        and "at half the micro-batch too" in record.failure(str(tmp_path / "b"))
    )
    message, seen = attempt(tmp_path / "c", monkeypatch, [FULL], dataclasses.replace(BASE, batch=1))
    assert message["kind"] == "failed" and seen == [1] and "cannot be halved" in message["error"]
    message, seen = attempt(
        tmp_path / "d", monkeypatch, [OSError(28, "No space left: RESOURCE_EXHAUSTED")], two
    )
    assert message["kind"] == "failed" and seen == [1]


@pytest.mark.parametrize(
    "seq_len,batch,asked,executed,halved",
    [
        (1024, 8, 1, 4, 8),  # the platform's own choice is what is halved
        (24, 8, 4, 4, 8),
        (24, 12, 4, 4, 12),  # 8 does not divide it
        (24, 8, 8, 8, None),
    ],
)
def test_what_was_executed_is_halved(seq_len, batch, asked, executed, halved):
    model = dataclasses.replace(BASE.model, vocab_size=8192, d_model=64, n_layers=4)
    run = dataclasses.replace(BASE, model=dataclasses.replace(model, seq_len=seq_len), batch=batch)
    where = dataclasses.replace(ALONE, accumulate=asked)
    assert programs.execution(run, where).accumulate == executed
    smaller = attempts._halved(run, where)
    assert (smaller and programs.execution(run, smaller).accumulate) == halved


def test_out_of_memory_in_one_of_several_processes(tmp_path, monkeypatch):
    """All of them start anew, each reading in the folder that the micro-batch is half; that is done
    once.
    """
    run = dataclasses.replace(BASE, batch=8)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    message, seen = attempt(tmp_path, monkeypatch, [FULL], run)
    assert message["kind"] == "halve" and seen == [1] and record.to_be_halved(str(tmp_path))
    message, seen = attempt(tmp_path, monkeypatch, [FULL], run)
    assert message["kind"] == "failed" and seen == [2] and not record.to_be_halved(str(tmp_path))


def test_what_another_holds_is_no_failure(tmp_path, monkeypatch):
    message, _ = attempt(tmp_path, monkeypatch, [lease.Held("in use")])
    assert message["kind"] == "elsewhere" and record.failure(str(tmp_path)) is None
    forged(tmp_path)
    message, _ = attempt(tmp_path, monkeypatch, [FileNotFoundError("removed by the other")])
    assert message["kind"] == "elsewhere" and record.failure(str(tmp_path)) is None


def test_told_to_stop_is_no_failure(tmp_path, monkeypatch):
    """As by a time limit of Slurm: the job ends with status 75 and is submitted again."""
    with pytest.raises(preempt.Preempted):
        attempt(tmp_path, monkeypatch, [preempt.Preempted("saved"), preempt.Preempted("saved")])
    assert record.failure(str(tmp_path)) is None
    with pytest.raises(SystemExit, match=str(preempt.STATUS)):
        attempts.serve_one(order_of(tmp_path))


# ---- the engines


def test_patience_ends_with_three_deaths_without_progress(tmp_path):
    task, patience = engines.Task(BASE, str(tmp_path), {}, 0, 1), engines.Patience()
    assert [patience.ends(task) for _ in range(2)] == [False, False]
    (tmp_path / checkpoint.FOLDER / "8").mkdir(parents=True)
    (tmp_path / checkpoint.FOLDER / "8" / checkpoint.MARK).write_text("{}")
    assert [patience.ends(task) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("name", list(engines.ENGINES))
def test_every_engine_keeps_the_contract(name):
    module = engines.get(Where(engine=name))
    assert module.__doc__ and callable(module.place) and callable(module.submit)
    assert not {"submitit", "sky"} & set(vars(module))


def test_core_imports_neither_submitit_nor_sky():
    code = (
        "import sys, importlib; [importlib.import_module(m) for m in"
        f" {list(engines.ENGINES.values())}]; import experiments.verbs.sweep;"
        " sys.exit(bool({'submitit', 'sky'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


BAD = [
    (["sweep", "--engine=slrum"], "choose from local, slurm, skypilot"),
    (["sweep", "--engine=slurm"], "no sbatch on this machine"),
    (["sweep", "--engine=skypilot"], "name the bucket"),
    (["sweep", "--engine=skypilot", "--set=where.sky.bucket=s3://b"], "no sky command"),
    (
        [
            "sweep",
            "--engine=skypilot",
            "--set=where.sky.bucket=s3://b",
            "--set=where.sky.accelerators=H100;rm",
        ],
        "write them as H100:8",
    ),
    (["sweep", "--set=where.slurm.node=2"], "did you mean"),
    (["sweep", "--set=where.lease=0"], "must lie in 1 .. 86400"),
    (["status"], "--workdir is missing"),
    (["status", "{new}"], "does not exist"),
    (["status", "{file}"], "is a file"),
    (["status", "{empty}"], "holds neither a sweep nor a run"),
    (["status", "{new}", "{new}"], "unexpected argument"),
    (["fit", "--workdir={empty}"], "no finished runs"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch, no sky
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    names = {"new": tmp_path / "new", "file": tmp_path / "file", "empty": tmp_path / "empty"}
    more = ["--config=quickstart", f"--workdir={names['new']}"] if argv[0] == "sweep" else []
    assert cli.main([a.format(**names) for a in argv] + more) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and words in said.err, said
    assert not names["new"].exists() and os.listdir(names["empty"]) == []


def test_slurm_without_submitit(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r'pip install -e ".\[slurm\]"'):
        slurm.place(Where(engine="slurm"), 3)
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    where = Where(engine="slurm", workers=5, slurm=config.Slurm(nodes=2, gpus_per_node=8))
    assert slurm.place(where, 9) == engines.Place("gpu", 16, 5)
    with pytest.raises(ConfigError, match="qos=high,constraint=h200"):
        slurm.place(dataclasses.replace(where, slurm=config.Slurm(extra="qos")), 9)


def test_squeue_finds_jobs_by_the_name_of_their_array(tmp_path, monkeypatch):
    """Job ids are used again by a controller that lost its memory; other people's jobs and ended
    ones do not count.
    """
    (tmp_path / "slurm" / "tok").mkdir(parents=True)
    ids = [["a"], ["b"], ["c", "e"]]  # the last is a pack
    files.write_json(str(tmp_path / "slurm" / "tok" / slurm.ORDERS), {"ids": ids, "orders": []})
    (tmp_path / "slurm" / "one").mkdir()
    files.write_json(str(tmp_path / "slurm" / "one" / slurm.ORDERS), {"ids": ["d"], "orders": []})
    text = (
        "isoflop-one N/A RUNNING\nisoflop-tok 0 RUNNING\nisoflop-tok 2 PENDING\nisoflop-tok 1"
        " FAILED\nisoflop-other 1 RUNNING\nbash N/A RUNNING\n\n"
    )
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, stdout=text)
    )
    assert slurm.queued(str(tmp_path)) == {"a", "c", "d", "e"}
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, stdout="")
    )
    assert slurm.queued(str(tmp_path)) is None and slurm.queued(str(tmp_path / "new")) == set()


SKY = [
    "--engine=skypilot",
    "--set=where.sky.bucket=gs://mine",
    "--set=sweep.budgets=3e10",
    "--set=batch=16",
    "--set=model.seq_len=32",
]


def test_skypilot_writes_the_task_and_calls_sky(tmp_path, monkeypatch, capsys):
    sky = tmp_path / "bin" / "sky"
    sky.parent.mkdir()
    sky.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    sky.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sky.parent}:{os.environ['PATH']}")
    argv = ["sweep", "--config=quickstart", *GRID, *SKY, f"--workdir={tmp_path / 'My sweep'}"]
    assert cli.main([*argv, "--set=where.sky.accelerators=tpu-v5litepod-16"]) == 0
    assert "0 of 4 runs are done, 4 are handed over" in capsys.readouterr().out
    path = tmp_path / "My sweep" / "skypilot" / "task.yaml"
    assert (tmp_path / "called").read_text() == f"jobs launch --yes --detach-run {path}\n"
    text = path.read_text()
    for line in (
        'name: "isoflop-my-sweep"',
        "  use_spot: true",
        '  accelerators: "tpu-v5litepod-16"',
        '    mode: "MOUNT_CACHED"',
        "        transfers: 1",
    ):
        assert line in text.splitlines()
    sky.write_text("#!/bin/sh\nexit 3\n")
    assert (
        cli.main([*argv, "--set=where.sky.nodes=2"]) == 2
        and "ended with status 3" in capsys.readouterr().err
    )
    dense = recipes.load("quickstart")
    assert (
        skypilot.place(
            dataclasses.replace(
                dense.where, sky=config.Sky("tpu-v4-16", bucket="gs://b", launch=False)
            ),
            1,
        ).devices
        == 8
    )


def test_a_node_of_skypilot_trains_what_the_orders_say(tmp_path, monkeypatch):
    """On a mount without links: files first, result.json last, the rest of the sweep's folder
    beside them.
    """
    monkeypatch.setattr(
        os, "link", lambda *a: (_ for _ in ()).throw(OSError(95, "Operation not supported"))
    )
    where = Where(
        engine="skypilot",
        sky=config.Sky(accelerators="", bucket="gs://mine", together=True, launch=False),
        tensorboard=False,
    )
    run = checks.resolve(BASE, "cpu")
    home = tmp_path / "home"
    home.mkdir()
    files.write_json(str(home / sweep.SWEEP), {"id": "s"})
    skypilot.submit(
        [engines.Task(run, engines.folder(str(home), config.run_id(run)), {"size": 8}, 0, 1)],
        where,
        str(home),
        print,
    )
    for _ in range(2):  # the second time nothing is left to do
        assert skypilot.main(str(home / "skypilot" / "orders.json"), str(tmp_path / "bucket")) == 0
    r = record.result(engines.folder(str(tmp_path / "bucket"), config.run_id(run)))
    assert r["tags"] == {"size": 8} and files.read_json(
        str(tmp_path / "bucket" / sweep.SWEEP), "sweep"
    ) == {"id": "s"}


@pytest.mark.slow
def test_skypilots_own_schema(tmp_path, capsys):
    """In a throwaway environment, for SkyPilot pins what we do not: about two minutes. SKY_PYTHON
    names one that is there.
    """
    python = os.environ.get("SKY_PYTHON")
    if not python:
        subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "v")], check=True)
        python = str(tmp_path / "v" / "bin" / "python")
        if subprocess.run(
            [python, "-m", "pip", "install", "-q", "skypilot"], check=False
        ).returncode:
            pytest.skip("skypilot cannot be installed here")
    code = """if 1:
        import sys, yaml, sky
        from sky.utils import common_utils, schemas
        for path in sys.argv[1:]:
            c = yaml.safe_load(open(path))
            common_utils.validate_schema(c, schemas.get_task_schema(), "task: ")
            common_utils.validate_schema(c["resources"], schemas.get_resources_schema(), "resources: ")
            for m in c["file_mounts"].values():
                isinstance(m, dict) and common_utils.validate_schema(m, schemas.get_storage_schema(), "storage: ")
            sky.Task.from_yaml_config(c)
            print("accepted by skypilot", sky.__version__)
    """  # noqa: E501
    kinds = {
        "gpu": [
            "--set=where.sky.accelerators=H100:8",
            "--set=where.sky.nodes=2",
            "--set=where.sky.infra=aws/us-east-1",
        ],
        "tpu": ["--set=where.sky.accelerators=tpu-v5litepod-16", "--set=where.sky.together=true"],
        "cpu": ["--set=where.sky.accelerators=", "--set=where.sky.spot=false"],
    }
    paths = []
    for name, more in kinds.items():
        argv = [
            "sweep",
            "--config=quickstart",
            *GRID,
            *SKY,
            "--set=where.sky.launch=false",
            *more,
            f"--workdir={tmp_path / name}",
        ]
        assert cli.main(argv) == 0
        paths.append(str(tmp_path / name / "skypilot" / "task.yaml"))
    done = subprocess.run([python, "-c", code, *paths], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.stdout.count("accepted by skypilot") == 3, done.stderr[-2000:]
    pathlib.Path(paths[0]).write_text(
        pathlib.Path(paths[0]).read_text().replace("use_spot: true", 'use_spot: "perhaps"')
    )
    assert subprocess.run(
        [python, "-c", code, paths[0]], capture_output=True, check=False
    ).returncode  # it does look


# ---- the ledger and `isoflop status`


def planned(tmp_path, *more):
    """A sweep's folder with its plan, and the ids of its runs."""
    job = recipes.load("quickstart")
    job = dataclasses.replace(
        job,
        sweep=dataclasses.replace(
            job.sweep,
            sizes=(8, 16),
            budgets=(1e10,),
            replicate_size=0,
            replicate_budget=0.0,
            replicate_seeds=(),
        ),
        run=checks.resolve(job.run, "cpu"),
    )
    p = grid.make(job, "cpu")
    sweep.claim(str(tmp_path), job, p)
    return job, p, [r.id for r in p.runs]


def test_status_tells_the_five_states(tmp_path, capsys):
    _, p, ids = planned(tmp_path)
    runs = tmp_path / "runs"
    for i in ids[:3]:
        (runs / i).mkdir(parents=True)
    (runs / ids[0] / record.RESULT).write_text(json.dumps(result(0) | {"id": ids[0]}))
    (runs / ids[1] / record.RESULT).write_text(
        json.dumps(result(0) | {"id": ids[1], "status": "diverged", "why": "went up"})
    )
    record.fail(str(runs / ids[2]), "its disk was full")
    with lease.Lease(str(runs / ids[3]), 60):
        files.write_json(
            str(runs / ids[3] / record.STATUS), {"phase": "step", "step": 50, "of": 200}
        )
        (runs / ids[3] / record.METRICS).write_text('{"step": 50, "loss": 2.5}\n{"step": 51, "lo')
        assert cli.main(["status", str(tmp_path), "--format=json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["counts"] == {"done": 1, "running": 1, "waiting": 0, "failed": 1, "diverged": 1}
        last = said["runs"][3]
        assert (last["step"], last["of"], last["loss"]) == (
            50,
            200,
            2.5,
        ) and f"process {os.getpid()} on" in last["holder"]
        pace = {r.family: r for r in p.runs}[last["family"]]
        want = 0.75 * (
            3.0 / p.runs[0].flops * p.runs[3].flops
            if last["family"] == p.runs[0].family
            else pace.seconds
        )
        assert said["left_s"] == pytest.approx(want, rel=0.5)
        assert cli.main(["status", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        for words in (
            "● 1 done",
            "◐ 1 running",
            "✗ 1 failed",
            "! 1 diverged",
            "50/200",
            "2.500",
            "went up",
            "its disk was full",
            "left",
        ):
            assert words in out, (words, out)
    assert cli.main(["status", str(tmp_path), "--format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["waiting"] == 1


def test_status_watches_until_all_is_done(tmp_path, capsys, monkeypatch):
    _, _, ids = planned(tmp_path)

    def sleep(seconds):
        i = ids.pop()
        (tmp_path / "runs" / i).mkdir(parents=True)
        (tmp_path / "runs" / i / record.RESULT).write_text(json.dumps(result(0) | {"id": i}))

    n = len(ids)
    monkeypatch.setattr(status.time, "sleep", sleep)
    assert cli.main(["status", str(tmp_path), "--watch", "--format=json"]) == 0
    lines = [json.loads(t)["counts"]["done"] for t in capsys.readouterr().out.splitlines()]
    assert lines == list(range(n + 1))


@pytest.mark.parametrize(
    "seconds,words", [(9.4, "9 s"), (93, "1 min 33 s"), (7500, "2 h 5 min"), (5e5, "5.8 days")]
)
def test_durations(seconds, words):
    assert status.duration(seconds) == words


def test_runs_are_added_to_a_sweep_and_none_is_taken_away(tmp_path):
    job, p, ids = planned(tmp_path)
    more = dataclasses.replace(job, sweep=dataclasses.replace(job.sweep, budgets=(1e10, 2e10)))
    grown = grid.make(more, "cpu")
    sweep.claim(str(tmp_path), more, grown)
    assert (
        {r["id"] for r in files.read_json(str(tmp_path / sweep.SWEEP), "sweep")["runs"]}
        == {r.id for r in grown.runs}
        > set(ids)
    )
    with pytest.raises(files.RecordError, match="there sweep.budgets"):
        sweep.claim(str(tmp_path), job, p)
    (tmp_path / sweep.SWEEP).unlink()  # lost: made again, for what is here is a sweep's
    sweep.claim(str(tmp_path), more, grown)
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / sweep.SWEEP).unlink()
    with pytest.raises(files.RecordError, match="holds no sweep"):
        sweep.claim(str(tmp_path), more, grown)


def test_a_result_taken_away_while_others_train_is_made_again(tmp_path):
    runs = [dataclasses.replace(BASE, seed=seed) for seed in (0, 1)]
    tasks = [
        engines.Task(r, engines.folder(str(tmp_path), config.run_id(r)), {}, 0, 1) for r in runs
    ]
    told = []

    def report(kind, _, task, message):
        told.append((kind, task.id))
        if told.count(("finished", tasks[0].id)) == 1 and (kind, task.id) == (
            "finished",
            tasks[0].id,
        ):
            os.unlink(os.path.join(task.folder, record.RESULT))

    local.submit(tasks, dataclasses.replace(ALONE, workers=1), str(tmp_path), report)
    assert all(record.result(t.folder) for t in tasks), told
    assert told.count(("finished", tasks[0].id)) == 2 and told.count(("finished", tasks[1].id)) == 1


@pytest.mark.parametrize("left", [1, 3])
def test_the_last_run_gets_the_share_of_the_first(left, tmp_path, monkeypatch):
    """A core or both is decided by all runs of a sweep: XLA splits sums over its threads, and what
    is trained last has the bits of what is trained first.
    """
    monkeypatch.setattr(choice, "cores", lambda: [0, 1])
    runs = [dataclasses.replace(BASE, seed=seed) for seed in range(3)]
    tasks = [
        engines.Task(r, engines.folder(str(tmp_path), config.run_id(r)), {}, 0, 1) for r in runs
    ]
    for t in tasks[left:]:
        os.makedirs(t.folder)
        pathlib.Path(t.folder, record.RESULT).write_text(json.dumps(result(0) | {"id": t.id}))
    started = []

    class Worker:
        def __init__(self, index, share, platform, folder):
            started.append(
                (
                    index,
                    "multi_thread_eigen=false"
                    in processes.environment(index, share, platform)["XLA_FLAGS"],
                )
            )
            raise KeyboardInterrupt

    monkeypatch.setattr(processes, "Worker", Worker)
    with pytest.raises(KeyboardInterrupt):
        engines.submit(tasks, dataclasses.replace(ALONE, mesh=""), str(tmp_path))
    assert started == [(0, True)]


def test_submit_leaves_alone_what_is_finished(tmp_path, monkeypatch):
    job, p, ids = planned(tmp_path)
    asked = []
    monkeypatch.setattr(local, "submit", lambda tasks, *a: asked.extend(t.id for t in tasks))
    (tmp_path / "runs" / ids[1]).mkdir(parents=True)
    (tmp_path / "runs" / ids[1] / record.RESULT).write_text(json.dumps(result(0) | {"id": ids[1]}))
    (tmp_path / "runs" / ids[2]).mkdir(parents=True)
    record.fail(str(tmp_path / "runs" / ids[2]), "why not")
    assert sweep.execute(str(tmp_path), job, p) == [f"run {ids[2]}: why not"]
    assert asked == [i for i in ids if i != ids[1]]
    assert ledger.standing(str(tmp_path / "runs" / ids[0])).state == "waiting"


@pytest.mark.parametrize("kind,status", [("failed", 1), ("finished", None)])
def test_a_job_of_slurm_fails_with_its_run(kind, status, tmp_path, monkeypatch, capsys):
    """So that sacct and mail of the cluster say it too."""
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"orders": [[{"where": config.to_dict(ALONE)}]]}))
    monkeypatch.setattr(slurm.signal, "signal", lambda *a: None)
    monkeypatch.setattr(slurm.worker, "begin", lambda where, several: None)
    monkeypatch.setattr(slurm.attempts, "serve_one", lambda order: {"kind": kind, "error": "why"})
    if status:
        with pytest.raises(SystemExit) as e:
            slurm.serve(str(path), 0)
        assert e.value.code == status
    else:
        slurm.serve(str(path), 0)
    assert json.loads(capsys.readouterr().out)["kind"] == kind
