"""`isoflop next`: a recipe for a larger budget, its registered prediction, and what becomes of
both.
"""

import dataclasses
import json
import math
import os
import pathlib
import shutil

import pytest

from data import pipeline
from experiments import recipes
from experiments.laws.published.constants import PUBLISHED
from experiments.planning import ladder, next_run, published_rates
from launch import config, files
from launch.runs import outcomes, predictions, record
from model import account
from tests.verbs.made_up_sweeps import call, written

STEP_LR, STEP_BATCH = PUBLISHED["step_law_lr"].values, PUBLISHED["step_law_batch"].values


def made_up(tmp_path, **changes) -> str:
    """A sweep of tiny runs from L = 1.2 + 12 / N^.35 + 30 / D^.3, on the text that is at hand."""
    job = recipes.load("quickstart")
    small = {
        "sizes": (8, 16, 24, 32),
        "budgets": (2e9, 4e9, 8e9, 1.6e10),
        "families": ("dense",),
        "replicate_size": 0,
        "replicate_budget": 0.0,
        "replicate_seeds": (),
    }
    sweep = dataclasses.replace(job.sweep, **{**small, **changes})
    return written(tmp_path, dataclasses.replace(job, sweep=sweep))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("next"))


@pytest.fixture
def work(original, tmp_path):
    return shutil.copytree(original, tmp_path / "w")


def asked(work, budget=1.6e11, *more):
    return ["next", f"--workdir={work}", f"--budget={budget:g}", "--bootstrap=100", *more]


def registered(capsys, work, budget=1.6e11, *more) -> dict:
    status, out, err = call(capsys, *asked(work, budget, "--format=json", *more))
    assert status == 0, err
    return json.loads(out)


def truth(n, d):
    return 1.2 + 12 / n**0.35 + 30 / d**0.3


def any_run(work) -> str:
    return os.path.join(work, "runs", min(os.listdir(os.path.join(work, "runs"))))


def finish(work, p, loss, **changes):
    """A finished run of a prediction, whose loss is made up."""
    like = any_run(work)
    r = files.read_json(os.path.join(like, record.RESULT), "result")
    r |= {"id": p["id"], "validation": {**r["validation"], "loss": loss}, **changes}
    r["prediction"] = predictions.judged(p, r)
    folder = outcomes.folder_of(work, p["id"])
    os.makedirs(folder)
    files.write_json(os.path.join(folder, record.RESULT), r)


def test_the_recipe_is_what_was_predicted(work, capsys):
    a = registered(capsys, work)
    p, job = a["prediction"], recipes.load(a["recipe"])
    assert config.run_id(job.run) == p["id"] and predictions.of(job.where.prediction, p["id"]) == p
    n, tokens = account.parameters(job.run.model)["multiplied"], p["tokens"]
    assert (p["n"], p["steps"]) == (n, config.steps(job.run))
    per_step = account.flops_per_token(job.run.model)["matmul"] * tokens / p["steps"]
    assert abs(p["flops"] - 1.6e11) <= per_step and 9 < p["distance"] < 11
    low, high = p["interval"]
    inner = p["parameters_interval"]
    assert low < p["loss"] < high and high - low > 0.95 * (inner[1] - inner[0])  # of 100 draws
    assert abs(p["loss"] - truth(n, tokens)) < high - low < 0.05
    # nearest on the ladder: no neighbour is nearer to N_opt
    sweep = next_run.sweep_of(os.path.join(work, "sweep.json"))
    want = p["optimum"]["n_opt"]["value"]
    off = abs(math.log(n / want))
    for size in (s for s in range(8, 200, 8) if ladder.fits(s, ladder.heads(s))):
        other = account.parameters(sweep.sweep.shape(sweep.run, size))["multiplied"]
        assert abs(math.log(other / want)) >= off - 1e-9
    assert job.run.batch == sweep.run.batch and job.run.schedule == sweep.run.schedule
    assert p["commit"] == record.commit() and len(p["data"]["sha256"]) == 64


def test_the_law_that_errs_less_on_the_upper_budgets_is_named(work, capsys):
    notes = registered(capsys, work, 1.6e11, "--law=kaplan_nd")["prediction"]["notes"]
    (said,) = [n for n in notes if "lower budgets alone" in n]
    assert said.startswith("fitted to the lower budgets alone, kaplan_nd misses")
    assert said.endswith("--law=chinchilla3 predicts by that")
    assert registered(capsys, work, 1.7e11)["prediction"]["notes"] == []


def test_typed_again_the_first_prediction_stands(work, capsys):
    a = registered(capsys, work)
    b = registered(capsys, work)
    assert b["registered_before"] and b["prediction"] == a["prediction"]
    status, out, _ = call(capsys, *asked(work))
    assert status == 0 and "registered before" in out and "isoflop train --config=" in out
    c = registered(capsys, work, 6e11)["prediction"]  # the next one names the one before
    assert c["previous"] == {k: a["prediction"][k] for k in ("id", "sha256")}


def test_rules_of_batch_rate_and_place(work, capsys):
    a = registered(capsys, work, 4e11, "--grow_batch", "--device=h200", "--devices=2")
    run = config.from_dict(config.Run, a["run"])
    assert run.batch == 8 and "Bi et al. 2024" in a["prediction"]["rules"]["batch"]
    assert run.dtype == "bfloat16" and a["where"]["mesh"] == "data=2" and a["devices"] == 2
    run = registered(capsys, work, 4e11, "--set=batch=3", "--set=optimizer.lr=0.5")
    assert run["run"]["batch"] == 3 and run["run"]["optimizer"]["lr"] == 0.5
    assert run["prediction"]["rules"]["rate"] == "given"


@pytest.mark.parametrize("name", published_rates.RULES)
def test_a_published_rule_sets_rate_and_batch(name, work, capsys):
    a = registered(capsys, work, 4e11, f"--rates={name}")
    run, p = config.from_dict(config.Run, a["run"]), a["prediction"]
    rule, s = published_rates.RULES[name], published_rates.size(run, 4e11)
    assert run.optimizer.lr == pytest.approx(rule.lr(s), rel=1e-9) and run.optimizer.embed_lr == 0
    assert abs(math.log2(run.batch * run.model.seq_len / rule.batch(s))) <= 0.5
    assert p["tokens"] == pytest.approx(s.d, rel=0.1)  # whole steps of a large batch
    assert p["rules"]["rate"].startswith(name) and rule.source in p["rules"]["rate"]
    assert any(f"are {name}'s" in note for note in p["notes"])
    text = pathlib.Path(a["recipe"]).read_text()
    assert f"Rate: {name}, for all parameters" in text and f"Batch: {name}" in text
    assert recipes.load(a["recipe"]).run == run
    given = registered(capsys, work, 4e11, f"--rates={name}", "--set=batch=3")
    assert given["run"]["batch"] == 3 and given["prediction"]["rules"]["batch"] == "given"


def test_published_rules_against_what_their_authors_trained():
    """DeepSeek LLM 7B and 67B: 2T tokens at 4.2e-4 and 3.2e-4, 2304 and 4608 sequences of 4096."""
    rule = published_rates.RULES["deepseek2024"]
    for layers, width, context, lr, batch in (
        (30, 4096, 4096, 4.2e-4, 2304 * 4096),
        (95, 8192, 4096, 3.2e-4, 4608 * 4096),
    ):
        m = 72 * layers * width**2 + 12 * layers * width * context
        s = published_rates.Size(0, 2e12, m * 2e12)
        assert rule.lr(s) == pytest.approx(lr, rel=0.03)
        assert rule.batch(s) == pytest.approx(batch, rel=0.1)
    step, (lr, batch) = published_rates.RULES["steplaw2025"], (STEP_LR, STEP_BATCH)
    s = published_rates.Size(1e9, 1e11, 0)
    assert step.lr(s) == pytest.approx(lr["k"] * s.n ** lr["a"] * s.d ** lr["b"])
    assert step.batch(s) == pytest.approx(batch["k"] * s.d ** batch["b"])


def test_what_a_rule_counts_is_its_authors_count():
    """M of DeepSeek: 72 L d^2 + 12 L d T, for attention with d_ff = 4 d, or three matrices of 8 d /
    3.
    """
    run = recipes.load("tiny_dense").run
    model, c = run.model, 1e12
    s = published_rates.size(run, c)
    d, layers = model.d_model, model.n_layers
    m = s.c / s.d
    own = account.flops_per_token(model)["matmul"] - 6 * d * model.vocab_size
    assert m == pytest.approx(own) and s.d * (m + 6 * d * model.vocab_size) == pytest.approx(c)
    assert m == pytest.approx(72 * layers * d**2 + 12 * layers * d * model.seq_len, rel=0.01)
    assert s.n == account.parameters(model)["non_embedding"]


BAD = [
    (["--budget=1.6e11", "--rates=kaplan"], "choose from deepseek2024, steplaw2025"),
    (["--budget=1.6e11", "--rates=steplaw2025", "--grow_batch"], "leave --grow_batch out"),
    ([], "--budget is missing"),
    (["--budget=-1"], "positive"),
    (["--budget=8e9"], "inside the sweep's own range"),
    (["--budget=2e8"], "below the sweep's own range"),
    (["--budget=2e14"], "say --far"),
    (["--budget=1.6e11", "--set=data.source=text"], "under other conventions"),
    (["--budget=1.6e11", "--set=model.seq_len=64"], "under other conventions"),
    (["--budget=1.6e11", "--set=schedule.warmup=0.5"], "under other conventions"),
    (["--budget=1.6e11", "--family=moe"], "this sweep has dense"),
    (["--budget=1.6e11", "--law=clark2022"], "choose from chinchilla3, kaplan_nd"),
    (["--budget=1.6e11", "--memory=1e-6"], "give more --devices"),
    (["--budget=1.6e11", "--hours=1e-9"], "--budget="),
    (["--budget=1.6e11", "--devices=0"], "at least 1"),
    (["--budget=1.6e11", "--set=batch=100000"], "fewer than 20"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, original, capsys):
    status, out, err = call(capsys, "next", f"--workdir={original}", "--bootstrap=100", *argv)
    assert status == 2 and out == "" and err.count("\n") == 1 and words in err, err
    assert not os.path.exists(predictions.place(original))


def test_a_folder_that_is_no_sweep(work, capsys, tmp_path):
    assert "does not exist" in call(capsys, *asked(tmp_path / "none"))[2]
    about = files.read_json(os.path.join(work, "sweep.json"), "sweep")
    files.write_json(os.path.join(work, "sweep.json"), {**about, "run": {"modell": 3}})
    status, _, err = call(capsys, *asked(work))
    assert status == 2 and "does not say what its runs were made of" in err
    files.write_json(
        os.path.join(work, "sweep.json"),
        {**about, "sweep": {**about["sweep"], "loss": "bits_per_byte"}},
    )
    assert "is about its loss bits_per_byte" in call(capsys, *asked(work))[2]


def edit(work, p, **changes):
    path = predictions.place(work, p["id"])
    files.write_json(path, {**files.read_json(path, "prediction"), **changes})


def test_an_edited_prediction_is_refused(work, capsys):
    p = registered(capsys, work)["prediction"]
    edit(work, p, loss=p["loss"] + 0.1)
    recipe = predictions.place(work, p["id"]).removesuffix("json") + "py"
    train = ["train", f"--config={recipe}", f"--workdir={work}/x", "--mesh=data=1"]
    for argv in (
        asked(work, 6e11),
        ["predictions", str(work)],
        ["status", str(work)],
        ["report", f"--workdir={work}", "--bootstrap=20"],
        train,
    ):
        status, _, err = call(capsys, *argv)
        assert status == 2 and "was edited after it was registered" in err, (argv, err)
    assert not os.path.exists(f"{work}/x")


def test_an_edit_with_a_new_hash_is_refused_too(work, capsys):
    """The prediction after it, and the record of its run, hold the old one."""
    p = registered(capsys, work)["prediction"]
    finish(work, p, p["loss"])
    new = {**p, "interval": [p["loss"] - 1, p["loss"] + 1]}
    new["sha256"] = predictions.digest(new)
    edit(work, p, **new)
    status, _, err = call(capsys, "predictions", str(work))
    assert status == 2 and "record holds the hash" in err
    edit(work, p, **p)
    later = registered(capsys, work, 6e11)["prediction"]
    edit(work, p, **new)
    status, _, err = call(capsys, *asked(work, 1.2e12))
    assert status == 2 and later["id"] in err and "not the one that was registered" in err
    os.remove(predictions.place(work, p["id"]))
    assert "is gone" in call(capsys, "predictions", str(work))[2]


def test_the_tally(work, capsys):
    near = [registered(capsys, work, b)["prediction"] for b in (4e10, 8e10)]
    far = registered(capsys, work, 8e11)["prediction"]
    waiting = registered(capsys, work, 1e12)["prediction"]
    finish(work, near[0], near[0]["loss"])
    finish(work, near[1], near[1]["interval"][1] + 0.01)
    finish(work, far, far["interval"][0] + 1e-6)
    status, out, _ = call(capsys, "predictions", str(work))
    assert status == 0 and "up to x10: 1 of 2 inside" in out
    assert "x10 to x100: 1 of 1 inside" in out and "1 not finished" in out
    assert out.count("OUTSIDE") == 1 and f"{waiting['id']}" in out and "not trained yet" in out
    a = json.loads(call(capsys, "predictions", str(work), "--format=json")[1])
    assert [t["judged"] for t in a["tally"]] == [2, 1, 0, 0] and len(a["predictions"]) == 4
    # a run on other text is not judged, nor is one that diverged
    r = files.read_json(os.path.join(outcomes.folder_of(work, far["id"]), record.RESULT), "result")
    other = predictions.judged(far, {**r, "fingerprints": {"corpus": "x", "tokenizer": "t"}})
    assert other["inside"] is None and "corpus is x" in other["why"]
    assert predictions.judged(far, {**r, "status": "diverged"})["inside"] is None


def test_a_run_elsewhere_and_none_at_all(work, capsys, tmp_path):
    assert "no prediction is registered" in call(capsys, "predictions", str(work))[2]
    assert "name the folder" in call(capsys, "predictions")[2]
    p = registered(capsys, work)["prediction"]
    finish(work, p, p["loss"])
    moved = shutil.move(outcomes.folder_of(work, p["id"]), tmp_path / "far_away")
    assert "not trained yet" in call(capsys, "predictions", str(work))[1]
    assert ": inside" in call(capsys, "predictions", str(work), f"--run={moved}")[1]
    like = any_run(work)
    status, _, err = call(capsys, "predictions", str(work), f"--run={like}")
    assert status == 2 and "has no prediction" in err


def test_beside_a_run_in_flight(work, capsys):
    """Status names the law at the tokens so far; the report draws it."""
    p = registered(capsys, work)["prediction"]
    folder = outcomes.folder_of(work, p["id"])
    os.makedirs(folder)
    half = p["steps"] // 2
    lines = [{"step": k, "loss": 3.0, "tokens": k * p["tokens"] / p["steps"]} for k in (1, half)]
    with open(os.path.join(folder, record.METRICS), "w") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)
    (row,) = outcomes.rows(str(work))
    at_half = truth(p["n"], p["tokens"] / 2)
    assert row["step"] == half and row["law_now"] == pytest.approx(at_half, abs=0.02)
    assert outcomes.at(p["curve"], p["tokens"]) == pytest.approx(p["loss"])
    status, out, _ = call(capsys, "status", str(work))
    out = " ".join(out.split())
    assert status == 0 and f"step {half:,} of {p['steps']:,}, training loss 3.0000" in out
    status, out, err = call(capsys, "report", f"--workdir={work}", "--bootstrap=20")
    assert status == 0, err
    page = (work / "report.html").read_text()
    assert "<h2>Predictions</h2>" in page and p["sha256"][:12] in page
    assert "training loss so far" in page


def test_from_sweep_to_trained_run(work, capsys):
    """The recipe trains as it is written, and its record says inside or outside."""
    job = next_run.sweep_of(os.path.join(work, "sweep.json"))
    prints = pipeline.load(job.run.data, job.run.model.seq_len, "").fingerprints
    for name in os.listdir(os.path.join(work, "runs")):
        path = os.path.join(work, "runs", name, record.RESULT)
        files.write_json(path, {**files.read_json(path, "result"), "fingerprints": prints})
    a = registered(capsys, work, 2.4e10)
    p, folder = a["prediction"], outcomes.folder_of(work, a["prediction"]["id"])
    train = ["train", f"--config={a['recipe']}", f"--workdir={folder}", "--mesh=data=1"]
    status, _, err = call(capsys, *train, "--set=optimizer.lr=1")
    assert status == 2 and "train what was predicted" in err and not os.path.exists(folder)
    status, out, err = call(capsys, *train)
    assert status == 0, err
    r = record.result(folder, p["id"])
    said = r["prediction"]
    assert said["sha256"] == p["sha256"] and "predicted" in out
    assert said["inside"] is (p["interval"][0] <= r["validation"]["loss"] <= p["interval"][1])
    assert ("inside" if said["inside"] else "OUTSIDE") in call(capsys, "status", folder)[1]
    other = shutil.copytree(folder, work.parent / "predictions" / "mine")  # of no sweep
    (other.parent / "notes.json").write_text("{}")
    status, out, _ = call(capsys, "status", str(other))
    assert status == 0 and "predicted" not in out
