"""`isoflop fit` as a person types it: files, folders, bad input."""

import json
import os

import numpy as np
import pytest

from tests.laws.tables_of_runs import call, folder, simulated, write_csv


def test_fit_verb_on_files_and_folders(capsys, tmp_path):
    path = write_csv(tmp_path / "runs.csv", simulated(30))
    argv = [
        "fit",
        f"--runs={path}",
        "--law=chinchilla3",
        "--objective=huber:1e-3",
        "--bootstrap=20",
        "--predict=C=1e21",
        "--format=json",
    ]
    status, out, _ = call(capsys, *argv)
    a = json.loads(out)
    assert (
        status == 0
        and {"parameters", "intervals", "objective", "n_points", "verdicts", "predictions"}
        <= set(a)
        and a["n_points"] == 30
    )
    assert (
        a["parameters"]["alpha"] == pytest.approx(0.3478, abs=0.05)
        and a["predictions"][0]["n_opt"]["interval"]
        and a["data"][0]["sha256"]
    )
    assert a["conventions"]["N"] == "n_params" and all(
        p["mark"].startswith("unverified") for p in a["published"]
    )
    text = call(capsys, *argv[:-1])[1]
    assert (
        "verdict:" in text
        and "published (unverified" in text
        and "N: n_params" in text
        and "nats/token" in text
    )
    assert text.count("unverified") >= 2
    # several sweeps, folders and files together, by another convention
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two", 3)
    argv = ["fit", f"--runs={one},{two}", f"--runs={path}", "--bootstrap=20", "--format=json"]
    assert json.loads(call(capsys, *argv)[1])["n_points"] == 54
    argv = [
        "fit",
        f"--workdir={one}",
        "--law=power_floor",
        "--params=total",
        "--flops=6N",
        "--bootstrap=20",
        "--format=json",
    ]
    a = json.loads(call(capsys, *argv)[1])
    assert a["conventions"]["C"] == "6N" and a["n_points"] == 12


BAD = [
    (["--runs={csv}", "--law=chinchila3"], "did you mean 'chinchilla3'"),
    (["--runs={csv}", "--objective=huber:x"], "choose huber:DELTA"),
    (["--runs={csv}", "--objective=l2"], "choose huber:DELTA"),
    (["--runs=/none.csv"], "does not exist"),
    (["--runs={csv}", "--where=flop>1"], "did you mean 'flops'"),
    (["--runs={csv}", "--n=n_parms"], "did you mean 'n_params'"),
    (["--runs={csv}", "--columns=tokens"], "COMMON=THEIRS"),
    (["--runs={csv}", "--predict=C"], "write numbers such as"),
    (["--runs={csv}", "--predict=C=-1"], "must be a positive number"),
    (["--runs={csv}", "--predict=E=8"], "answers for N, D"),
    (["--runs={csv}", "--law=chinchilla2", "--predict=N=1e9"], "a budget C alone"),
    (["--runs={csv}", "--law=clark2022"], "no column"),
    (["--runs={few}"], "5 parameters, 5 runs cannot fit it"),
    (["--runs={flat}"], "N is the same"),
    (["--runs={nan}"], "positive, finite values"),
    (["--runs={zero}"], "positive, finite values"),
    (["--runs={words}"], "holds words"),
    (["--runs={empty}"], "holds no rows"),
    (["--runs={csv}", "--law=chinchilla2"], "interior minimum"),
    (["--runs={csv}", "--hold_out=1e30"], "leaves 30 runs to fit"),
    (["--law=chinchilla3"], "--runs is missing"),
    (["--workdir={folder}", "--n=totl"], "count multiplied"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, capsys, tmp_path):
    t = simulated(30)

    def bad(k, v):
        return t | {k: np.concatenate([[v], t[k][1:]])}

    few = {k: v[:5] for k, v in t.items()}
    made = {
        "csv": t,
        "few": few,
        "flat": t | {"n_params": np.full(30, 1e8)},
        "nan": bad("tokens", np.nan),
        "zero": bad("tokens", 0.0),
    }
    names = {k: write_csv(tmp_path / f"{k}.csv", v) for k, v in made.items()}
    names["words"] = write_csv(
        tmp_path / "words.csv", t | {"tokens": np.array(["many"] * 30, object)}
    )
    (tmp_path / "empty.csv").write_text("")
    names |= {"empty": str(tmp_path / "empty.csv"), "folder": folder(tmp_path / "sweep")}
    before = sorted(os.listdir(tmp_path))
    status, out, err = call(capsys, "fit", *[a.format(**names) for a in argv], "--bootstrap=20")
    assert (
        status == 2
        and out == ""
        and err.count("\n") == 1
        and err.startswith("isoflop fit: ")
        and words in err
    ), err
    assert sorted(os.listdir(tmp_path)) == before
