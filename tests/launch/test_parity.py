"""Hugging Face's transformers as an outside witness: logits, losses, updates, in and out of their
format (extra `parity`).
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
from launch.config import Run
from launch.huggingface import folder, tokenizer
from launch.huggingface.families import FAMILIES
from launch.runs import generate, record
from model import records_version1, step
from model.lm import LM
from model.mlps import routing
from model.optim import Optimizer
from model.sample import Sampling
from tests.conftest import ROOT
from tests.model import shapes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GOLDEN = os.path.join(os.path.dirname(ROOT), "shared", "parity")
SMALL = dict(
    vocab_size=67,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=40,
)
LLAMA = dict(SMALL, intermediate_size=48, num_key_value_heads=2)
MOE = dict(LLAMA, num_experts_per_tok=2, moe_intermediate_size=24)
LATENT = dict(
    kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=6, num_key_value_heads=4
)

# name -> (family, fields of its config class)
CONFIGS = {
    "gpt2": ("gpt2", dict(vocab_size=67, n_embd=32, n_layer=3, n_head=4, n_positions=40)),
    "gpt2-relu": (
        "gpt2",
        dict(
            vocab_size=67,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=40,
            n_inner=20,
            activation_function="relu",
        ),
    ),
    "opt": ("opt", dict(SMALL, ffn_dim=48, word_embed_proj_dim=32)),
    "opt-post": (
        "opt",
        dict(SMALL, ffn_dim=48, word_embed_proj_dim=32, do_layer_norm_before=False),
    ),
    "opt-unbiased": ("opt", dict(SMALL, ffn_dim=48, word_embed_proj_dim=32, enable_bias=False)),
    "xglm": (
        "xglm",
        dict(
            vocab_size=67,
            d_model=32,
            num_layers=3,
            attention_heads=4,
            ffn_dim=48,
            max_position_embeddings=40,
        ),
    ),
    "bloom": ("bloom", dict(vocab_size=67, hidden_size=32, n_layer=3, n_head=4)),
    "bloom-6-heads": ("bloom", dict(vocab_size=67, hidden_size=48, n_layer=2, n_head=6)),
    "llama": ("llama", dict(LLAMA)),
    "llama-biased": (
        "llama",
        dict(LLAMA, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=12),
    ),
    "mistral": ("mistral", dict(LLAMA, sliding_window=5)),
    "qwen3": ("qwen3", dict(LLAMA, head_dim=12)),
    "qwen3-window": (
        "qwen3",
        dict(LLAMA, head_dim=8, use_sliding_window=True, sliding_window=6, max_window_layers=0),
    ),
    "mixtral": ("mixtral", dict(LLAMA, num_experts_per_tok=2, num_local_experts=6)),
    "olmoe": ("olmoe", dict(LLAMA, num_experts_per_tok=3, num_experts=6)),
    "qwen3_moe": (
        "qwen3_moe",
        dict(MOE, num_experts=6, norm_topk_prob=True, head_dim=12, mlp_only_layers=[0]),
    ),
    "qwen3_moe-sparse-step": (
        "qwen3_moe",
        dict(MOE, num_experts=6, num_hidden_layers=4, decoder_sparse_step=2, head_dim=8),
    ),
    "deepseek_v3": (
        "deepseek_v3",
        dict(
            MOE,
            **LATENT,
            rms_norm_eps=1e-2,
            n_routed_experts=8,
            n_group=4,
            topk_group=2,
            q_lora_rank=12,
            first_k_dense_replace=1,
        ),
    ),
    "deepseek_v3-plain": (
        "deepseek_v3",
        dict(
            MOE,
            **LATENT,
            n_routed_experts=8,
            n_group=1,
            topk_group=1,
            q_lora_rank=None,
            first_k_dense_replace=2,
            rope_interleave=False,
        ),
    ),
}


def tokens(batch=2, length=33, seed=0):
    return np.random.default_rng(seed).integers(0, 67, (batch, length)).astype(np.int32)


def build(name, path):
    """A tiny random model of transformers, saved in `path`; weights are scaled so that no logit is
    near zero.
    """
    family, fields = CONFIGS[name]
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(family, **fields)
    model = (
        transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        .eval()
        .float()
    )
    with torch.no_grad():
        for _, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.1 if p.ndim == 1 else 0.15))
        for key, b in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                b.add_(torch.randn_like(b) * 0.2)
    model.save_pretrained(path, safe_serialization=True)
    return model


def worst(got, want):
    """Largest share of the tolerance of check_parity.py: rtol |want| + rtol rms(want), rtol
    2e-4.
    """
    return float((np.abs(got - want) / (2e-4 * (np.abs(want) + np.sqrt((want**2).mean())))).max())


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """(name, their model, folder, our model, our variables)."""
    path = str(tmp_path_factory.mktemp("hf") / request.param)
    theirs = build(request.param, path)
    return request.param, theirs, path, *folder.load(path)


def test_logits(pair):
    name, theirs, _, c, v = pair
    with torch.no_grad():
        want = theirs(torch.tensor(tokens(), dtype=torch.long)).logits.numpy()
    got = np.asarray(jax.jit(lambda v, t: LM(c).apply(v, t)[0])(v, tokens()))
    share = worst(got, want)
    print(f"parity {name}: {share:.3f} of the tolerance")
    assert got.shape == want.shape and share < 1


def test_every_family_has_a_witness():
    assert {family for family, _ in CONFIGS.values()} == set(FAMILIES)


def test_out_again(pair, tmp_path):
    """Written by us and read by transformers: the same logits."""
    _, theirs, _, c, v = pair
    assert folder.save(str(tmp_path / "out"), c, v) == folder.family_of(c)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        str(tmp_path / "out"), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        a, b = (m(torch.tensor(tokens(), dtype=torch.long)).logits.numpy() for m in (theirs, again))
    assert worst(b, a) < 0.2


golden = pytest.mark.skipif(
    not os.path.isdir(GOLDEN), reason="the golden folders are not beside this checkout"
)


@golden
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "xglm"])
def test_known_logits_and_greedy_text(name):
    """Checkpoints with the logits that another program computed, and sixteen greedy tokens after a
    text.
    """
    c, held = folder.load(os.path.join(GOLDEN, name))
    expected = np.load(os.path.join(GOLDEN, name, "expected.npz"))
    forward = jax.jit(lambda t: LM(c).apply(held, t)[0])
    assert worst(np.asarray(forward(expected["tokens"])), expected["logits"]) < 1
    text, last = expected["greedy_tokens"], expected["greedy_logits"]
    count = last.shape[1]
    assert worst(np.asarray(forward(text[:, :-1]))[:, -count:], last) < 1
    run = Run(model=c, dtype="float32")
    ours = generate.generate(run, held, list(text[:, :-count]), count, Sampling(0.0)).tokens
    np.testing.assert_array_equal(ours, text[:, -count:])


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
    o = Optimizer(b1=recipe["b1"], b2=recipe["b2"], eps=recipe["eps"], clip=1e9, decay="all")
    lm, hyper = (
        LM(c),
        {"lr": recipe["lr"], "embed_lr": recipe["lr"], "weight_decay": recipe["weight_decay"]},
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
