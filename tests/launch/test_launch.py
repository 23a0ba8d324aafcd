"""Identity, overrides, layouts, resumes, records, and the local engine's choices."""

import dataclasses
import gc
import json
import math
import os
import pathlib
import weakref

import jax
import numpy as np
import pytest

from data.config import Data
from launch import config, engines, files, overrides
from launch.config import ConfigError, Horizon, Job, Run, Where
from launch.devices import choice, layout, mesh
from launch.engines import local
from launch.files import RecordError
from launch.runs import checks, ledger, record, train
from launch.runs import program as programs
from launch.runs.pace import SECONDS, Pace
from model import parts
from model.config import Execution
from model.optimizers import AdamW
from tests.model import shapes

make = shapes.maker(
    vocab_size=320, seq_len=24, d_model=16, n_layers=2, n_heads=2, d_ff=32, n_experts=4
)
DENSE, MOE = make(), make(pattern=("attention/moe",))
BASE = Run(
    model=DENSE,
    data=Data(source="synthetic", validation_windows=40),
    batch=8,
    horizon=Horizon(steps=12),
    optimizer=AdamW(lr=1e-2),
)
ALONE = Where(mesh="data=1", log_every=4, tensorboard=False, keep_final=False)


def lines(folder):
    return [json.loads(t) for t in pathlib.Path(folder, record.METRICS).read_text().splitlines()]


def test_id_hashes_the_run_alone_and_ignores_defaults():
    a = config.run_id(BASE)
    assert a == config.run_id(dataclasses.replace(BASE)) and len(a) == 12
    assert a != config.run_id(dataclasses.replace(BASE, seed=1))
    assert "theta" not in json.dumps(config.brief(BASE)) and config.brief(Run()) == {
        "version": 2,
        "data": {"order": 2},
    }
    assert (
        config.from_dict(Run, config.brief(BASE))
        == config.from_dict(Run, json.loads(json.dumps(config.to_dict(BASE))))
        == BASE
    )


@pytest.mark.parametrize(
    "text,get,value",
    [
        ("model.d_model=128", lambda j: j.run.model.d_model, 128),
        ("model.tied=true", lambda j: j.run.model.tied, True),
        ("optimizer.lr=1", lambda j: j.run.optimizer.lr, 1.0),
        (
            "model.pattern=attention/dense,attention/moe",
            lambda j: parts.written(j.run.model.pattern),
            "attention/dense, attention/moe",
        ),
        ("where.remat=True", lambda j: j.where.remat, True),
        ("horizon.tokens=1e6", lambda j: j.run.horizon.tokens, 1_000_000),
        ("data.source=tfds:lm1b", lambda j: j.run.data.source, "tfds:lm1b"),
        ("model.positions= none", lambda j: parts.written(j.run.model.positions), "none"),
    ],
)
def test_set(text, get, value):
    assert get(overrides.set_fields(Job(), [text])) == value


@pytest.mark.parametrize(
    "text,words",
    [
        ("model.d_modle=1", "did you mean model.d_model"),
        ("modle.d_model=1", "did you mean model"),
        ("d_model=1", "did you mean model.d_model"),
        ("model.d_model=big", "cannot read it as int"),
        ("model.d_model=1.5", "int expected"),
        ("model.tied=3", "bool expected"),
        ("model=3", "name one of its fields"),
        ("model.d_model", "field=value"),
        ("batch.x=1", "has no field"),
        ("optimizer.lr=nan", "cannot read"),
        ("optimizer.lr=1e999", "finite"),
        ("where.scna=true", "did you mean where.scan"),
        ("model.d_model=__import__('os')", "cannot read"),
    ],
)
def test_bad_set(text, words):
    with pytest.raises(ConfigError, match=words):
        overrides.set_fields(Job(), [text])


@pytest.mark.parametrize(
    "h", [Horizon(), Horizon(steps=1, tokens=5), Horizon(tokens=3), Horizon(steps=-1)]
)
def test_bad_horizons(h):
    with pytest.raises(ConfigError):
        config.steps(dataclasses.replace(BASE, horizon=h))


def test_horizons_round_to_whole_steps():
    per = BASE.batch * BASE.model.seq_len
    assert config.steps(dataclasses.replace(BASE, horizon=Horizon(tokens=10 * per + 3))) == 10
    from model import account

    flops = 10.4 * per * account.flops_per_token(DENSE)["matmul"]
    assert config.steps(dataclasses.replace(BASE, horizon=Horizon(flops=flops))) == 10


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    out = {}
    for name, model in (("dense", DENSE), ("moe", MOE)):
        folder = str(tmp_path_factory.mktemp(name))
        out[name] = (
            train.train(dataclasses.replace(BASE, model=model), ALONE, folder),
            lines(folder),
        )
    return out


@pytest.mark.parametrize(
    "layout,name", [("data=2,fsdp=2,tensor=2", "dense"), ("data=4,expert=2", "moe")]
)
def test_records_of_layouts_agree_with_one_device(layout, name, single, tmp_path):
    """Through the loop; the numbers of every layout are compared in test_layouts.py."""
    run = dataclasses.replace(BASE, model={"dense": DENSE, "moe": MOE}[name])
    where = dataclasses.replace(ALONE, mesh=layout, scan=name == "moe", remat=name == "moe")
    got = train.train(run, where, str(tmp_path / "r"))
    want, want_lines = single[name]
    assert got["id"] == want["id"] and got["device"]["count"] == 8
    np.testing.assert_allclose(got["validation"]["loss"], want["validation"]["loss"], rtol=1e-3)
    np.testing.assert_allclose(
        [l["loss"] for l in lines(tmp_path / "r")], [l["loss"] for l in want_lines], rtol=1e-3
    )


def test_parameters_are_sharded_by_the_rules():
    p = programs.program(
        dataclasses.replace(BASE, model=MOE, dtype="float32"),
        dataclasses.replace(ALONE, mesh="fsdp=2,tensor=2,expert=2"),
    )
    layer = p.layout.shardings.params["group_0"]["layer_0"]
    assert tuple(layer["mlp"]["in"].spec) == ("expert", "fsdp", "tensor")
    assert tuple(layer["mixer"]["q"]["kernel"].spec)[:2] == (("fsdp", "expert"), "tensor")
    assert (
        jax.tree.leaves(p.layout.shardings.opt[1].mu)[0].spec
        == jax.tree.leaves(p.layout.shardings.params)[0].spec
    )


def test_record_is_complete_and_counted(single, tmp_path):
    r, metrics = single["moe"]
    tokens = 12 * 8 * 24
    assert (
        r["training_tokens"] == r["bytes"] == tokens
        and r["steps"] == 12
        and r["dataset_tokens"] is None
    )
    assert (
        r["flops"]["matmul"] == r["flops_per_token"]["matmul"] * tokens
        and r["flops"]["6N_active"] == 6 * r["parameters"]["active"] * tokens
    )
    assert r["executed_flops"] > r["flops"]["matmul"]
    assert r["validation"]["tokens"] == 40 * 24 and 0 < r["validation"]["se"] < 0.2
    assert r["status"] == "finished" and r["why"] is None and r["unlearned"]  # in twelve steps
    assert r["validation"]["loss"] > r["unigram_entropy"] and r["diverged_at"] is None
    assert r["validation"]["excess"] > -3 * r["validation"]["excess_se"]
    assert len(r["moe"]["expert_load"]) == 2 and min(r["moe"]["expert_load"]) >= 1
    assert {"versions", "commit", "fingerprints", "seconds", "device", "where", "epochs"} <= set(r)
    assert (
        [m["step"] for m in metrics] == [4, 8, 12]
        and metrics[-1]["tokens"] == tokens
        and metrics[-1]["flops_matmul"] == r["flops"]["matmul"]
    )
    assert {
        "loss",
        "bits_per_byte",
        "learning_rate",
        "grad_norm",
        "tokens_per_s",
        "expert_load",
        "router_entropy",
        "balance_loss",
    } <= set(metrics[0])
    assert all(len(m["expert_load"]) == 2 for m in metrics)


def test_a_second_train_returns_the_record(single, tmp_path, monkeypatch):
    folder = str(tmp_path / "r")
    first = train.train(BASE, ALONE, folder)
    monkeypatch.setattr(train, "_steps", lambda *a: pytest.fail("trained twice"))
    assert train.train(BASE, ALONE, folder) == first
    with pytest.raises(RecordError, match="belongs to run"):
        train.train(dataclasses.replace(BASE, seed=5), ALONE, folder)


def test_a_result_of_another_run_is_nobodys(single, tmp_path, monkeypatch):
    """A folder may hold a result.json and no run.json: copied by hand, or by a tool."""
    monkeypatch.setattr(train, "_steps", lambda *a: pytest.fail("trained over it"))
    path = tmp_path / "r" / record.RESULT
    path.parent.mkdir()
    path.write_text(json.dumps(single["moe"][0]))
    before, own = path.read_text(), checks.resolve(BASE, "cpu")
    mine = config.run_id(own)
    other = single["moe"][0]["id"]
    with pytest.raises(RecordError, match=f"is of run {other}, not of {mine}"):
        train.train(BASE, ALONE, str(tmp_path / "r"))
    with pytest.raises(RecordError, match="is of run"):
        record.finish(str(tmp_path / "r"), {"id": mine})  # as at the end of a run that overlapped
    task = engines.Task(own, str(tmp_path / "r"), {}, None, 1.0)
    with pytest.raises(RecordError, match="is of run"):
        engines.submit([task], ALONE, str(tmp_path))
    standing = ledger.standing(task.folder, task.id)
    assert standing.state == "failed" and "is of run" in standing.why
    assert os.listdir(path.parent) == [record.RESULT] and path.read_text() == before


def test_programs_of_many_shapes_are_let_go(monkeypatch):
    """The least recently used of more than a process keeps; what it held goes with it."""
    monkeypatch.setattr(programs.layouts, "lower_train", lambda layout, batch, dispatch: None)
    monkeypatch.setattr(programs.choice, "compiled", lambda lowered, platform: None)
    programs.forget()
    run = dataclasses.replace(BASE, dtype="float32")

    def of(batch):
        return programs.program(dataclasses.replace(run, batch=batch), ALONE)

    first = weakref.ref(of(1).layout.lm)
    for batch in range(2, programs.PROGRAMS + 2):
        of(batch)
    gc.collect()
    assert programs._program.cache_info().currsize == programs.PROGRAMS
    assert first() is None
    programs.forget()


def test_learning_rate_reuses_the_program(tmp_path):
    a = programs.program(dataclasses.replace(BASE, dtype="float32"), ALONE)
    b = programs.program(
        dataclasses.replace(
            BASE,
            dtype="float32",
            horizon=Horizon(steps=99),
            seed=4,
            optimizer=AdamW(lr=0.5, weight_decay=0.1),
        ),
        ALONE,
    )
    assert a is b


@pytest.mark.parametrize("model", [DENSE, MOE], ids=["dense", "moe"])
def test_a_start_traces_a_layer_once(model):
    """However deep the model is; and garbage is collected again afterwards."""

    def products(depth):
        c = dataclasses.replace(model, n_layers=depth)
        l = layout.lay(c, AdamW(), Execution(), mesh.make(mesh.parse("data=1"), jax.devices()[:1]))
        return layout.lower_step(l, 2).as_text().count("stablehlo.dot_general")

    assert products(6) == products(2) > 10 and gc.isenabled()


def test_options_that_an_xla_does_not_know_are_left_out(monkeypatch):
    """The next XLA may have dropped one of ours: the program compiles without it, and with the
    others.
    """
    tried, lowered = [], jax.jit(lambda a: a + 1).lower(1.0)

    class Lowered:
        def compile(self, compiler_options=None):
            tried.append(compiler_options)
            return lowered.compile(compiler_options=compiler_options)

    known = ("xla_cpu_prefer_vector_width", 512)
    monkeypatch.setitem(
        choice.CHOICES,
        "cpu",
        choice.CHOICES["cpu"]._replace(options=(("xla_cpu_of_yesterday", True), known)),
    )
    assert choice.compiled(Lowered(), "cpu")(1.0) == 2
    assert tried == [{"xla_cpu_of_yesterday": True, known[0]: 512}, dict([known])]


def test_a_program_that_does_not_compile_says_so():
    class Lowered:
        def compile(self, compiler_options=None):
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        choice.compiled(Lowered(), "cpu")


def test_the_options_of_this_platform_are_known_here():
    for option in choice.choice("cpu").options:
        jax.jit(lambda a: a + 1).lower(1.0).compile(compiler_options=dict([option]))


def test_a_call_holds_as_many_updates_as_fit(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("launch.runs.pace.time.perf_counter", lambda: clock[0])
    pace = Pace(most=15)

    def after(*calls):
        """Counts after each call, given as (seconds, updates)."""
        counts = []
        for seconds, updates in calls:
            clock[0] += seconds
            pace.finished(updates)
            counts.append(pace.count())
        return counts

    one = SECONDS / 3  # a third of a call
    assert after((9, 1)) == [1]  # nothing to compare with yet
    assert after((1.01 * SECONDS, 1), (0.99 * one, 1), (0.99 * one, 1)) == [
        1,
        1,
        3,
    ]  # medians: 1.01 calls, 2/3 of one, 1/3
    assert after((100, 3), (3 * 0.99 * one, 3)) == [3, 3]  # a machine that slept
    assert after((4 * one, 3), (4 * one, 3)) == [2, 2]  # a machine that has become slower
    pace.paused()
    assert after((1000, 1), (0.2, 20), (0.2, 20)) == [2, 2, 15]
    assert Pace(most=20, always=7).count() == 7 and Pace(most=20).count() == 1


def test_the_loop_goes_by_the_clock(tmp_path, monkeypatch):
    done = []
    train.train(
        dataclasses.replace(BASE, seed=4),
        ALONE,
        str(tmp_path / "b"),
        lambda n, total: done.append(n),
    )
    assert (
        done[:3] == [1, 2, 3] and done[-1] == 12 and len(done) < 12
    )  # until the second call is done there is nothing to go by
    done.clear()
    monkeypatch.setattr(Pace, "count", lambda self: 1 + len(done) % 3)
    train.train(
        dataclasses.replace(BASE, seed=5),
        ALONE,
        str(tmp_path / "a"),
        lambda n, total: done.append(n),
    )
    assert done == [1, 3, 6, 7, 9, 12]


def test_text_run_counts_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("def f(x):\n    return x + 1\n" * 400)
    run = dataclasses.replace(
        BASE,
        model=dataclasses.replace(DENSE, vocab_size=256),
        data=Data(source="text", path=str(tmp_path / "a.txt"), validation_windows=6),
    )
    r = train.train(run, ALONE, str(tmp_path / "r"))
    v = r["validation"]
    assert r["bytes"] == r["training_tokens"] and r["epochs"] == pytest.approx(
        12 * 8 / ((r["dataset_tokens"] - 1) // 24)
    )
    assert v["bits_per_byte"] == pytest.approx(v["loss"] / math.log(2), rel=0.01)


@pytest.mark.parametrize(
    "sizes,batch,words",
    [
        ("data=3", 8, "batch=9"),
        ("tensor=3", 8, "n_heads"),
        ("expert=2", 8, "no experts"),
        ("dta=2", 8, "unknown"),
        ("data=x", 8, "positive whole number"),
        ("data=2,data=2", 8, "positive whole number"),
        ("data=0", 8, "positive"),
    ],
)
def test_bad_meshes(sizes, batch, words):
    with pytest.raises(ConfigError, match=words):
        mesh.check(mesh.parse(sizes), DENSE, batch, 8)


def test_mesh_larger_than_the_machine():
    with pytest.raises(ConfigError, match="needs 16 devices"):
        mesh.check(mesh.parse("data=16"), DENSE, 16, 8)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 1}', "null", "\x00\x01"])
def test_damaged_results_are_named_and_kept(content, tmp_path):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(RecordError, match="move it away"):
        record.result(str(tmp_path))
    assert (tmp_path / "result.json").read_text() == content


def test_write_json_is_atomic(tmp_path):
    path = str(tmp_path / "x.json")
    files.write_json(path, {"a": 1})
    with pytest.raises((TypeError, ValueError)):
        files.write_json(path, {"a": object()})
    assert files.read_json(path, "x") == {"a": 1} and os.listdir(tmp_path) == ["x.json"]


def test_tensorboard_events(tmp_path):
    where = dataclasses.replace(ALONE, tensorboard=True)
    train.train(dataclasses.replace(BASE, model=MOE), where, str(tmp_path / "r"))
    events = os.listdir(tmp_path / "r" / "events")
    assert len(events) == 1 and os.path.getsize(tmp_path / "r" / "events" / events[0]) > 500


def test_devices_are_known_or_said_to_be_unknown():
    assert (
        choice.device("NVIDIA H200").memory == 141e9
        and choice.device("NVIDIA H100 80GB HBM3").peak == 989e12
    )
    assert choice.device("TPU v5 lite").peak == 197e12 and choice.device("TPU v5p").peak == 459e12
    assert choice.device("cpu") is None and choice.mfu(DENSE, 1e6, "cpu", 1) is None


def test_engine_keeps_shapes_together():
    def task(shape, cost):
        return engines.Task(BASE, "", {}, shape, cost)

    todo = [task("a", 1), task("a", 3), task("b", 5), task("c", 2), task("c", 2), task("c", 2)]
    assert local.choose(todo, {"a"}, {"b"}) == todo[1]  # its own shape first, the costliest
    assert local.choose(todo, set(), {"a"}).shape == "c"  # of new shapes the one with most work
    assert local.choose(todo[:2], {"b"}, {"a"}) == todo[1]  # else help another


def test_old_records_are_read_with_their_order_of_data():
    """Records of version 1, of before `data.order` existed; new runs have another order."""
    runs = sorted(pathlib.Path("tests/launch/records").glob("*.json"))
    assert runs
    for path in runs:
        kept = json.loads(path.read_text())
        run = config.from_dict(Run, kept["run"])
        assert run.data.order == 1
        flat = shapes.view(run.model)
        for name, value in kept["run"]["model"].items():
            if name not in ("pattern", "first_layers"):
                assert getattr(flat, name, None) in (value, value or getattr(flat, name)), name
        new = dataclasses.replace(run, data=dataclasses.replace(run.data, order=2))
        assert config.run_id(new) != config.run_id(run)
        assert config.brief(new)["data"]["order"] == 2
        assert config.from_dict(Run, config.brief(new)) == new


def test_a_folder_of_an_earlier_version_is_named(tmp_path):
    old = {"id": "0" * 12, "run": {"model": {"d_model": 16}}}
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(RecordError, match="an earlier version of isoflop began it"):
        record.claim(str(tmp_path), BASE)
    old["run"]["version"] = 2
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(RecordError) as e:
        record.claim(str(tmp_path), BASE)
    assert "began it" not in str(e.value)
