"""Records of runs that nobody trained, in a folder, and the verbs that read it."""

import json

from experiments import cli
from launch.runs import record
from model import account

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"


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
        "averages": {"ema": {"loss": 1.6 + 40 / n**0.5 + 300 / tokens**0.5, "se": 0.01}},
        "shared": {
            "run": "0",
            "step": 20,
            "here": {"steps": 80, "tokens": 80, "flops": 0.8, "seconds": 1.6, "joules": None},
        },
        "noise_scale": {"tokens": 5e3, "signal": 0.1, "noise": 15.0, "steps": 50},
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
