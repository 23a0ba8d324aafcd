"""Hugging Face's transformers as an outside witness of training: updates, losses, weights in and
out, tokenizers (extra `parity`).
"""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import pipeline, tokenizers
from data.config import Data
from experiments import cli
from launch import files
from launch.huggingface import folder, tokenizer
from launch.runs import generate, record
from model import records_version1, step
from model.lm import LM
from model.mlps import routing
from model.optimizers import AdamW
from tests.launch.transformers_models import (
    GOLDEN,
    golden,
    torch,
    transformers,
)
from tests.model import shapes


@golden
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "xglm"])
def test_five_updates(name):
    """Five AdamW steps from imported weights, through our own training step, give the losses that
    torch gave.
    """
    path = os.path.join(GOLDEN, name)
    with open(os.path.join(path, "meta.json")) as f:
        recipe = json.load(f)["adamw"]
    expected = np.load(os.path.join(path, "expected.npz"))
    c, held = folder.load(path)
    c = shapes.replace(c, balance_weight=0.0, z_weight=0.0)  # cross-entropy alone
    o = AdamW(b1=recipe["b1"], b2=recipe["b2"], eps=recipe["eps"], clip=1e9, decay="all")
    lm, hyper = (
        LM(c),
        {
            **dict.fromkeys(("lr", "embed_lr", "head_lr"), recipe["lr"]),
            "weight_decay": recipe["weight_decay"],
        },
    )
    state = step.create(lm, o, held["params"])._replace(buffers=held["buffers"])
    one, losses = jax.jit(lambda s, t: step.train_step(lm, o, s, t, hyper)), []
    for _ in range(recipe["steps"] + 1):
        state, metrics = one(state, expected["tokens"])
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, expected["adamw_losses"], rtol=1e-3)
    assert losses[-1] < losses[0] - 0.1


def test_balance_loss_pooled_as_theirs():
    """transformers' load_balancing_loss_func sums its fractions to top_k: top_k times ours."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    c = records_version1.model(
        n_experts=6,
        top_k=2,
        n_layers=3,
        pattern=("attention/moe",),
        balance_scope="model",
        balance_weight=1.0,
        z_weight=0.0,
    )
    p = c.routed[0]
    logits = [
        np.random.default_rng(i).normal(size=(1, 20, 6)).astype(np.float32) * 2 for i in range(3)
    ]
    rows = [
        routing.statistics(p, 6, jnp.asarray(x), routing.route(p, jnp.asarray(x), None, True))
        for x in logits
    ]
    ours = routing.losses(c, jax.tree.map(lambda *a: jnp.stack(a), *rows))["auxiliary"]
    theirs = load_balancing_loss_func(
        tuple(torch.tensor(x[0]) for x in logits), num_experts=6, top_k=2
    )
    assert float(theirs) == pytest.approx(2 * float(ours), rel=1e-5)


TEXT = "runs of models, sizes of models, losses of runs: what does scale buy?\n" * 400


@pytest.mark.parametrize("name", ["dense", pytest.param("moe", marks=pytest.mark.slow)])
def test_trained_exported_and_trained_on(name, tmp_path, capsys):
    """Train, export, the same loss in transformers to 1e-4; then go on training from the export:
    the first loss is the imported model's.
    """
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text(TEXT[::-1])
    data = [
        "--set=data.source=text",
        f"--set=data.path={tmp_path}/*.txt",
        "--set=data.validation_windows=8",
    ]
    shape = [
        "--set=model.mlp.activation=swiglu",
        "--set=model.seq_len=32",
        "--set=model.attention.n_kv_heads=1",
        "--set=horizon.steps=60",
    ]
    where = [
        "--set=where.mesh=data=1",
        "--set=where.tensorboard=false",
        f"--set=where.scan={str(name == 'moe').lower()}",
    ]
    assert (
        cli.main(
            ["train", f"--config=tiny_{name}", f"--workdir={tmp_path}/run", *data, *shape, *where]
        )
        == 0
    )
    assert cli.main(["export", f"--run={tmp_path}/run", f"--hf_dir={tmp_path}/out"]) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "out")).eval()
    saved = generate.load(str(tmp_path / "run"))
    windows = pipeline.load(saved.run.data, 32).validation().astype(np.int64)
    with torch.no_grad():
        logits = model(torch.tensor(windows[:, :-1])).logits
        theirs = float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.tensor(windows[:, 1:]).flatten()
            )
        )
    ours = record.result(str(tmp_path / "run"))["validation"]["loss"]
    print(f"exported {name}: ours {ours:.6f}, theirs {theirs:.6f}")
    assert theirs == pytest.approx(ours, abs=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert tokenizer("What? \u00dc\n")["input_ids"] == list("What? \u00dc\n".encode())

    more = [
        "--set=horizon.steps=4",
        "--set=where.log_every=1",
        "--set=optimizer.lr=1e-6",
        "--set=optimizer.embed_lr=1e-6",
        *data,
        *where,
    ]
    argv = [
        "train",
        "--config=tiny_dense",
        f"--workdir={tmp_path}/tuned",
        f"--init_from={tmp_path}/out",
        *more,
    ]
    assert cli.main(argv) == 0
    first = json.loads((tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    run = files.read_json(str(tmp_path / "tuned" / "run.json"), "run")["run"]
    batch = pipeline.load(saved.run.data, 32).batch(0, run["batch"]).astype(np.int64)
    with torch.no_grad():
        logits = model(torch.tensor(batch[:, :-1])).logits
        imported = float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.tensor(batch[:, 1:]).flatten()
            )
        )
    assert first == pytest.approx(imported, abs=1e-4)
    assert run["init"] == folder.fingerprint(str(tmp_path / "out"))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_exports_exactly(kind, tmp_path):
    import sentencepiece

    (tmp_path / "text").write_text(TEXT + " Unicode: \u00fc \u65e5\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "m"),
        vocab_size=330,
        hard_vocab_limit=False,
        model_type=kind,
        byte_fallback=True,
        minloglevel=2,
    )
    d = Data(tokenizer="sentencepiece", tokenizer_path=str(tmp_path / "m.model"))
    ours = tokenizers.load(d)
    tokenizer.save(str(tmp_path), d, ours.separator)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in (
        "losses of runs",
        "  two  spaces\nand lines ",
        "\u00fcber \u65e5\u672c \U0001f600",
        "aaaaaa",
    ):
        assert theirs(text, add_special_tokens=False)["input_ids"] == list(
            ours.encode(text.encode())
        )
