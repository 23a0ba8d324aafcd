"""Tables as people save them, which of their rows are evidence, and what their columns identify."""

import json

import numpy as np
import pytest

from experiments import cli
from experiments.laws import isoflop_slices, procedures, table_fit
from experiments.laws.exceptions import FitError
from experiments.laws.fitting import isoflop, noise_model
from experiments.laws.runs import selection, sweep_folder
from experiments.laws.runs import table as tables

E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658


def loss_at(n, d):
    return E + A / n**ALPHA + B / d**BETA


def call(capsys, *argv):
    status = cli.main(list(argv))
    out = capsys.readouterr()
    return status, out.out, out.err


# ---- files

WANT = {"n_params": [1e6, 2e6, 4e6], "tokens": [1.5e9, 2e9, 3e9], "loss": [3.25, 3.5, 3.125]}
PLAIN = "n_params,tokens,loss\n1000000,1.5e9,3.25\n2000000,2e9,3.5\n4000000,3e9,3.125\n"
GERMAN = "n_params;tokens;loss\n1.000.000;1,5E+09;3,25\n2.000.000;2E9;3,5\n4.000.000;3E9;3,125\n"
READ = {
    "plain": PLAIN.encode(),
    "byte-order mark": PLAIN.encode("utf-8-sig"),
    "utf-16": PLAIN.encode("utf-16"),
    "windows line ends": PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
    "old mac line ends": PLAIN.replace("\n", "\r").encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "told separator": b"sep=;\n" + PLAIN.replace(",", ";").encode(),
    "decimal commas": GERMAN.encode(),
    "quotes": PLAIN.replace("3.25", '"3.25"').replace("loss", '"loss"').encode(),
    "thousands": PLAIN.replace("1000000", '"1,000,000"').replace("2000000", "2 000 000").encode(),
    "no-break spaces": PLAIN.replace("1000000", "1\u00a0000\u202f000").encode(),
    "spaces": PLAIN.replace(",", " , ").replace("\n", " \n").encode(),
    "blank lines": PLAIN.replace("\n", "\n\n").encode() + b",,\n",
    "index without a name": b",n_params,tokens,loss,\n0,1e6,1.5e9,3.25,\n1,2e6,2e9,3.5,\n"
    b"2,4e6,3e9,3.125,\n",
}


@pytest.mark.parametrize("body", READ.values(), ids=READ)
def test_files_are_read_as_spreadsheets_save_them(body, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(body)
    t = tables.read_csv(str(path))
    assert set(t) == {*WANT, "row"}
    for name, values in WANT.items():
        assert t[name].tolist() == values, name


@pytest.mark.parametrize("word", ["N/A", "NA", "n/a", "-", "null", "None", "nan", "#N/A", "", " "])
def test_words_for_no_value(word, tmp_path):
    (tmp_path / "a.csv").write_text(PLAIN.replace("3.5", word))
    loss = tables.read_csv(str(tmp_path / "a.csv"))["loss"]
    assert np.isnan(loss[1]) and loss[0] == 3.25


REFUSED = {
    "two names": ("a,loss,loss\n1,2,3\n", "two columns 'loss' (2 and 3)"),
    "no header": ("1,2,3\n4,5,6\n", "no header line"),
    "more cells": (PLAIN.replace("3.5", "3,5"), "row 3 has 4 cells under 3 names"),
    "fewer cells": (PLAIN.replace(",3.5", ""), "row 3 has 2 cells under 3 names"),
    "both marks": (GERMAN.replace("3,25", "3.25"), "decimal points (row 2, column 'loss': '3.25')"),
    "either mark": (
        'n_params,tokens,loss\n1000,2000,"3,217"\n',
        "row 2, column 'loss': '3,217' is a decimal comma or a separator",
    ),
    "words": (PLAIN.replace("3.5", "oops"), "column 'loss', row 3 holds words ('oops')"),
    "a size in words": (PLAIN.replace("2000000", "2M"), "column 'n_params', row 3 holds words"),
    "latin-1": (b"n_params,loss\n1,\xb5\n", "not UTF-8 text (row 2)"),
    "zero bytes": (PLAIN.encode("utf-16-le"), "not UTF-8 text"),
    "no rows": ("n_params,tokens,loss\n", "holds no rows"),
    "infinite": (PLAIN.replace("3.5", "inf"), "loss of row 3 is inf"),
    "no tokens": (PLAIN.replace("2e9", ""), "tokens of row 3 is nan"),
}


@pytest.mark.parametrize("body,words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_named(body, words, capsys, tmp_path):
    """One line with the row, the column and the cell."""
    path = tmp_path / "a.csv"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    status, out, err = call(capsys, "fit", f"--runs={path}", "--law=chinchilla3")
    assert status == 2 and not out and err.count("\n") == 1 and words in err, err


def test_a_quoted_list_stays_words(tmp_path):
    (tmp_path / "a.csv").write_text('loss,layers\n3.25,"1,2"\n3.5,"3"\n')
    t = tables.read_csv(str(tmp_path / "a.csv"))
    assert t["loss"].tolist() == [3.25, 3.5] and t["layers"].tolist() == ["1,2", "3"]
    with pytest.raises(FitError, match="column 'layers', row 2 holds words"):
        tables.numbers(t, "layers")


def many(rows=40, seed=0, sigma=0.003):
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(7, 10, rows), 10 ** rng.uniform(9, 12, rows)
    loss = loss_at(n, d) * np.exp(sigma * rng.standard_normal(rows))
    return [["n_params", "tokens", "flops", "loss"], *zip(n, d, 6 * n * d, loss)]


def saved(path, rows):
    path.write_text("\n".join(",".join(str(c) for c in row) for row in rows) + "\n")
    return str(path)


def fitted(capsys, path, *more):
    status, out, err = call(
        capsys,
        "fit",
        f"--runs={path}",
        "--law=chinchilla3",
        "--bootstrap=20",
        "--format=json",
        *more,
    )
    assert status == 0, err
    return json.loads(out)


def test_where_gets_past_a_bad_row(capsys, tmp_path):
    rows = many()
    good = fitted(capsys, saved(tmp_path / "good.csv", rows[:3] + rows[4:]))
    rows[3] = (*rows[3][:3], "oops")
    path = saved(tmp_path / "a.csv", rows)
    for text in ("loss!='oops'", "row!=4", "loss<99"):
        assert fitted(capsys, path, f"--where={text}")["parameters"] == good["parameters"]
    rows[3] = (*rows[3], 5)
    path = saved(tmp_path / "b.csv", rows)
    assert fitted(capsys, path, "--where=row!=4")["parameters"] == good["parameters"]


def test_a_row_of_several_files_is_named_with_its_file(tmp_path):
    paths = [saved(tmp_path / f"{k}.csv", many()) for k in "ab"]
    t = tables.read(paths)
    assert tables.place(t, 0) == "row 2 of a.csv" and tables.place(t, 79) == "row 41 of b.csv"
    assert tables.place(tables.read(paths[:1]), 0) == "row 2"


def test_a_blank_loss_is_skipped_with_a_count(capsys, tmp_path):
    rows = many()
    good = fitted(capsys, saved(tmp_path / "good.csv", rows[:3] + rows[5:]))
    rows[3], rows[4] = (*rows[3][:3], ""), (*rows[4][:3], "N/A")
    a = fitted(capsys, saved(tmp_path / "a.csv", rows))
    assert a["parameters"] == good["parameters"] and a["n_points"] == 38
    assert [e["what"] for e in a["left_out"]] == ["2 rows without a loss (row 4, row 5)"]


def test_units_are_said_as_given(capsys, tmp_path):
    rows = many()
    rows[0] = ["size", "tokens", "flops", "val_bpb"]
    path = saved(tmp_path / "a.csv", rows)
    a = fitted(capsys, path, "--columns=loss=val_bpb,n_params=size")
    assert a["conventions"]["loss"] == "val_bpb, in the file's own unit"
    assert a["conventions"]["N"] == "size"
    assert fitted(capsys, saved(tmp_path / "b.csv", many()))["conventions"]["loss"] == "nats/token"


def test_warnings_on_units_and_far_questions(capsys, tmp_path):
    rows = many()
    path = saved(tmp_path / "a.csv", rows)
    assert fitted(capsys, path, "--predict=C=1e21")["warnings"] == []
    (far,) = fitted(capsys, path, "--predict=C=1e30")["warnings"]
    assert "C=1e+30" in far and "decades outside these runs" in far
    scaled = [rows[0], *((n / 1e6, d / 1e9, c, v) for n, d, c, v in rows[1:])]
    path = saved(tmp_path / "b.csv", scaled)
    warned = fitted(capsys, path, "--predict=C=1e21")["warnings"]
    assert len(warned) == 1 and "C / (N D) is 6e+15 in row 2" in warned[0]
    assert "40 of 40 rows" in warned[0] and "plain units" in warned[0]


def test_repeated_rows_count_once(capsys, tmp_path):
    rows = [("run_id", *many()[0]), *((f"r{i}", *r) for i, r in enumerate(many()[1:]))]
    again = [(f"again{i}", *r[1:]) for i, r in enumerate(rows[1:])]
    once = fitted(capsys, saved(tmp_path / "a.csv", rows))
    path = saved(tmp_path / "b.csv", rows + again)
    twice = fitted(capsys, path)
    assert twice["intervals"] == once["intervals"]
    assert twice["left_out"][0]["what"].startswith("40 rows that repeat others (again0, ")
    assert fitted(capsys, path, "--pool=repeats")["n_points"] == 80


# ---- evidence


def run(i, family="dense", corpus="a", tokenizer="bytes", lr=0.01, seed=0, loss=3.0, **model):
    n, d = 1e5 * (1 + i % 5), 1e6 * (1 + i // 5)
    return {
        "id": f"{family}{corpus}{tokenizer}{i}/{lr}/{seed}",
        "family": family,
        "status": "finished",
        "tags": {"size": i % 5, "budget": None, "role": "tokens", "lr_multiplier": lr / 0.01},
        "run": {
            "seed": seed,
            "data": {"seed": seed},
            "optimizer": {"lr": lr},
            "model": {"d_ff": 64, "pattern": ["attention/dense"], **model},
            "batch": 8,
        },
        "parameters": {"multiplied": n, "total": n, "active": n},
        "training_tokens": d,
        "flops": {"matmul": 6 * n * d},
        "validation": {"loss": float(loss_at(n, d)) + abs(np.log(lr / 0.01)) / 10 + seed / 1e3},
        "fingerprints": {"corpus": corpus, "tokenizer": tokenizer},
        "steps": 10,
    }


def folder(path, results):
    for k, r in enumerate(results):
        where = path / "runs" / f"{k:012d}"
        where.mkdir(parents=True)
        (where / "result.json").write_text(json.dumps(r | {"id": where.name}))
    return str(path)


def test_a_model_is_read_from_the_run_not_from_its_name():
    routed = {"pattern": ["attention/moe"], "n_experts": 64, "top_k": 8}
    row = sweep_folder.run_row(run(0, "moe_64_8", **routed))
    assert (row["n_experts"], row["sparsity"], row["granularity"]) == (64, 56 / 64, 8)
    row = sweep_folder.run_row(run(0, "fine", **routed | {"d_expert": 16}))
    assert (row["n_experts"], row["granularity"]) == (64, 4)
    some = {"first_layers": ["attention/moe"], "n_experts": 4, "top_k": 1}
    assert sweep_folder.run_row(run(0, "dense", **some))["n_experts"] == 4
    row = sweep_folder.run_row(run(0, "moe", n_experts=64))
    assert (row["n_experts"], row["sparsity"], row["granularity"]) == (1, 0, 1)
    defaults = sweep_folder.run_row(run(0, "x", pattern=["attention/moe"]))
    assert (defaults["n_experts"], defaults["granularity"]) == (8, 2)


MIXED = [
    *[run(i) for i in range(20)],
    *[run(i, corpus="b") for i in range(6)],
    *[run(i, tokenizer="bpe") for i in range(5)],
    *[run(i, family="moe") for i in range(4)],
    *[run(i, lr=0.04) for i in range(20)],
]


def test_one_selection_for_tables_and_analyses(capsys, tmp_path):
    """One text, one tokenizer, one family, the best rate: the rest is counted and named."""
    path = folder(tmp_path / "s", [*MIXED, run(30) | {"status": "diverged"}])
    a = fitted(capsys, path)
    words = "; ".join(e["what"] for e in a["left_out"])
    assert a["n_points"] == 20, words
    for said in (
        "1 run not finished",
        "6 runs of corpus b",
        "5 runs of tokenizer bpe",
        "4 runs of family moe",
        "20 runs at other learning rates",
    ):
        assert said in words, words
    assert fitted(capsys, path, "--pool=corpus,lr")["n_points"] == 46
    text = call(capsys, "fit", f"--runs={path}", "--law=chinchilla3", "--bootstrap=20")[1]
    assert text.count("left out: ") == 5
    status, out, err = call(capsys, "fit", f"--runs={path}", "--pool=texts")
    assert status == 2 and "choose among corpus, tokenizer" in err
    # the analysis of the same folder keeps the same runs
    a = json.loads(call(capsys, "fit", f"--workdir={path}", "--bootstrap=20", "--format=json")[1])
    words = "; ".join(e["what"] for e in a["excluded"])
    assert "6 runs of corpus b" in words and "5 runs of tokenizer bpe" in words
    assert a["n_points"] == 44 and len(a["learning_rates"]) == 20
    own = tables.read([path])
    kept, _ = selection.of_table(own, False)
    losses = a["families"]["dense"]["parametric"]["points"]["measured"]
    assert sorted(kept["loss"]) == sorted(losses)


def test_experts_tell_families_apart_only_where_a_law_has_them():
    t = {k: v for k, v in zip(("n_params", "tokens", "flops", "loss"), np.array(many()[1:]).T)}
    t["family"] = np.array(["dense", "moe"] * 20, object)
    assert len(selection.of_table(t, True)[0]["loss"]) == 40
    kept, left = selection.of_table(t, False)
    assert set(kept["family"]) == {"dense"} and left[0]["what"].startswith("20 runs of family moe")


def test_brackets_of_a_file_keep_their_best_rate():
    """Replicates at the best rate stay; the rate is chosen by the mean over them."""
    t = {
        "n_params": np.full(6, 1e6),
        "tokens": np.full(6, 1e9),
        "lr": np.array([1, 1, 2, 2, 4, 4.0]),
        "loss": np.array([3.0, 3.2, 2.9, 3.0, 2.8, 3.5]),
    }
    kept, left = selection.of_table(t, True)
    assert kept["loss"].tolist() == [2.9, 3.0] and left[0]["what"].startswith("4 runs at other")
    assert len(selection.of_table(t, True, rates=True)[0]["loss"]) == 6


def test_rows_that_differ_in_batch_are_no_seeds():
    t = {
        "n_params": np.repeat([1e6, 2e6], 4),
        "tokens": np.full(8, 1e9),
        "flops": np.repeat([6e15, 12e15], 4),
        "seed": np.tile([0, 1, 2, 3.0], 2),
        "loss": np.linspace(3, 2, 8),
    }
    x = {"N": t["n_params"], "D": t["tokens"]}
    assert len(set(tables.cells(None, t, x))) == 2
    for name in ("batch", "batch_size", "batch_tokens", "weight_decay"):
        assert tables.cells(None, t | {name: np.arange(8.0)}, x) is None, name
    words = np.array(["adam", "adam", "muon", "muon"] * 2, object)
    assert len(set(tables.cells(None, t | {"optimizer": words}, x))) == 4
    rows = [sweep_folder.run_row(run(0, seed=s)) for s in (0, 1)]
    assert rows[0]["recipe_hash"] == rows[1]["recipe_hash"]
    other = run(0, seed=1)
    other["run"]["batch"] = 16
    assert sweep_folder.run_row(other)["recipe_hash"] != rows[0]["recipe_hash"]


# ---- isoFLOP slices


def slices(sigma=0.002, seed=0, points=9, width=30.0, growth=0.0, seeds=1):
    """Slices that span a factor 900 in size, their losses of a known law."""
    rng, rows = np.random.default_rng(seed), []
    best = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    for c in np.geomspace(1e18, 1e21, 5):
        middle = best * (c / 6) ** (BETA / (ALPHA + BETA)) * np.exp(rng.uniform(-0.5, 0.5))
        for n in middle * np.geomspace(1 / width, width, points):
            for s in range(seeds):
                loss = loss_at(n, c / 6 / n)
                noise = sigma * (loss / 2.5) ** growth * rng.standard_normal()
                rows.append((n, c / 6 / n, c, c, s, loss + noise))
    return dict(zip(("n_params", "tokens", "flops", "budget", "seed", "loss"), np.array(rows).T))


def test_misfit_of_a_wide_slice_is_no_noise():
    """The answer is the data's own minima; the intervals hold the truth and are no wider than the
    noise makes them.
    """
    hits, widths = 0, []
    for seed in range(8):
        a = table_fit.ask(slices(seed=seed), "chinchilla2_interpolated", resamples=60)
        low, high = a["intervals"]["n_exponent"]
        hits += low <= BETA / (ALPHA + BETA) <= high
        widths.append(high - low)
        assert low <= a["parameters"]["n_exponent"] <= high
        assert a["verdicts"]["noise"] < 0.004
    assert hits >= 6 and np.mean(widths) < 0.06
    exact = [m["n_opt"] for m in a["verdicts"]["minima"]]
    again = table_fit.ask(slices(seed=7), "chinchilla2_interpolated", resamples=60, seed=5)
    assert [m["n_opt"] for m in again["verdicts"]["minima"]] == exact
    assert again["verdicts"]["noise_from"] == "between neighbours near the minima"


def test_noise_of_slices_from_seeds_by_loss_or_given(capsys, tmp_path):
    t = slices(0.005, seeds=3)
    x = {"n": t["n_params"], "d": t["tokens"], "c": t["flops"], "loss": t["loss"]}
    level = isoflop_slices.noise(t, x)
    assert level.how == "between seeds" and level.dof == 90 and level.growth == 0
    assert level.sigma == pytest.approx(0.005, rel=0.2)
    t = slices(0.005, seeds=3, growth=4)
    level = isoflop_slices.noise(t, x | {"loss": t["loss"]})
    assert level.growth == pytest.approx(4, abs=1.5)
    assert level(5.0) / level(2.5) == pytest.approx(16, rel=0.8)
    a = table_fit.ask(t, "chinchilla2_interpolated", resamples=50, noise="0.01")
    assert a["verdicts"]["noise"] == 0.01 and "given by --noise=0.01" in a["bootstrap"]["method"]
    by_loss = noise_model.given_noise("3:.002,7:.05")
    assert by_loss([2, 3, 5, 7, 9]) == pytest.approx([0.002, 0.002, 0.026, 0.05, 0.05])
    for text in ("x", "-1", "3:.1:2", "3:.1,3:.2", "3:.1,4", "nan", ""):
        with pytest.raises(FitError, match="give one number"):
            noise_model.given_noise(text)
    with pytest.raises(FitError, match="not by chinchilla3"):
        table_fit.ask(t, "chinchilla3", noise="0.01")
    small = noise_model.given_noise("1e-6")
    for name in table_fit.SLICED:
        run_ = procedures.PROCEDURES[name].run
        v = run_(t, resamples=50, level=small).draws["n_exponent"]
        assert np.nanstd(v) < 1e-3, name


def test_what_the_columns_identify_is_fitted(capsys, tmp_path):
    """Tokens, FLOPs and loss give D_opt; parameters, tokens and loss give C as 6 N D."""
    t = slices()
    whole = table_fit.ask(t, "chinchilla2_interpolated", resamples=50)
    for name in ("chinchilla2", "chinchilla2_interpolated"):
        for gone, kept in (("n_params", "d"), ("tokens", "n")):
            part = {k: v for k, v in t.items() if k != gone}
            a = table_fit.ask(part, name, resamples=50, asked=[{"C": 1e20}])
            assert (
                set(a["parameters"]) == {f"log_{kept}", f"{kept}_exponent"} == set(a["intervals"])
            )
            at = f"{kept}_exponent"
            assert a["parameters"][at] == pytest.approx(whole["parameters"][at], abs=0.02)
            assert set(a["predictions"][0]) == {"given", f"{kept}_opt"}
            assert {"N": "n_params", "D": "tokens"}[kept.upper()] in a["conventions"].values()
    part = {k: v for k, v in t.items() if k != "flops"}
    a = table_fit.ask(part, "chinchilla2", resamples=50)
    assert a["conventions"]["C"] == "6N x tokens" and a["parameters"]["n_exponent"] > 0.4
    rows = [["tokens", "flops", "loss"], *zip(t["tokens"], t["flops"], t["loss"])]
    path = saved(tmp_path / "a.csv", rows)
    status, out, _ = call(
        capsys, "fit", f"--runs={path}", "--law=chinchilla2", "--bootstrap=20", "--predict=C=1e20"
    )
    assert status == 0 and "d_opt" in out and "n_opt" not in out and "N:" not in out
    status, out, err = call(capsys, "fit", f"--runs={path}")
    assert status == 2 and "--law=chinchilla2 reads D_opt off tokens, flops and loss" in err


def test_by_size_averages_replicates():
    sizes, mean = isoflop.by_size(np.array([1.0, 2, 1]), np.array([3.0, 5, 4]))
    assert sizes.tolist() == [1, 2] and mean.tolist() == [3.5, 5]
