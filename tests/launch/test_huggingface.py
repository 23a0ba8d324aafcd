"""Folders in Hugging Face's format without Hugging Face: round trips, and what a user reads when
one is wrong.
"""

import json

import jax
import numpy as np
import pytest

from experiments import cli
from launch.config import ConfigError
from launch.huggingface import comparing, folder
from launch.huggingface.families import FAMILIES
from model import parts, records_version1
from model.config import Execution
from model.lm import LM
from tests.model import shapes
from tests.model.test_model import tokens, variables

base = shapes.maker(
    vocab_size=40,
    seq_len=24,
    d_model=16,
    n_layers=2,
    n_heads=2,
    n_kv_heads=1,
    d_ff=24,
    activation="swiglu",
    norm_eps=1e-5,
)
BASE = base()
GPT2 = records_version1.model(
    vocab_size=40,
    seq_len=24,
    d_model=16,
    n_layers=2,
    n_heads=2,
    d_ff=24,
    positions="learned",
    norm="layernorm",
    tied=True,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
)
GATED = "dense(d_ff=24,activation=swiglu)"
MODELS = {
    "llama": BASE,
    "mistral": base(window=5),
    "qwen3": base(qk_norm="head"),
    "mixtral": base(pattern=("attention/moe",), n_experts=4),
    "gpt2": GPT2,
}


@pytest.fixture
def llama(tmp_path):
    folder.save(str(tmp_path / "hf"), BASE, variables(BASE))
    return tmp_path / "hf"


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name, tmp_path):
    c = MODELS[name]
    held = variables(c)
    assert folder.family_of(c) == name == folder.save(str(tmp_path), c, held)
    again, back = folder.load(str(tmp_path))
    assert not comparing.differences(again, c) and not comparing.differences(c, again)
    assert jax.tree.structure(held["params"]) == jax.tree.structure(back["params"])
    jax.tree.map(np.testing.assert_array_equal, held["params"], back["params"])


@pytest.mark.parametrize(
    "change,words",
    [
        ({"activation": "gelu"}, "model.dense.activation='gelu'"),
        ({"logit_cap": 30.0}, "llama, differs in model.logit_cap=30.0"),
        ({"positions": "none"}, "model.positions='none'"),
        (
            {"pattern": ("attention/moe",), "n_experts": 4, "capacity_factor": 1.25},
            "mixtral, differs in model.moe.capacity_factor",
        ),
        ({"out_bias": True}, "llama, differs in model.attention.out_bias=True"),
        ({"positions": "learned"}, "model.positions='learned'"),
        ({"rope_fraction": 0.5, "qk_norm": "head"}, "model.rope.fraction=0.5"),
        ({"layers": shapes.BY_LAYER["sandwich"]}, "model.layer.norm='sandwich'"),
        (
            {"layers": ", ".join(f"attention(n_heads=2,window={w})/{GATED}" for w in (4, 6))},
            r"mistral, differs in model.pattern\[1\].mixer.window=6",
        ),
        (
            {"layers": shapes.BY_LAYER["some without rope"]},
            r"model.pattern\[1\].mixer.positions='rope\(theta=100.0\)'",
        ),
        ({"layers": "lstm/dense"}, "has layers lstm/dense"),
    ],
)
def test_what_no_family_has_is_named(change, words):
    with pytest.raises(ConfigError, match=words):
        folder.family_of(base(**change))


def test_patterns_that_tile_alike_are_equal():
    written = f"attention(n_heads=2,window=4,qk_norm=head)/{GATED}"
    full = written.replace("window=4,", "")
    m = base(n_layers=4, layers=f"{written}, {full}, {written}, {full}")
    assert folder.family_of(m) == "qwen3"  # which reads two layers, twice


def edit(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(
        json.dumps({k: v for k, v in (config | changes).items() if v != "DROP"})
    )


def rewrite(path, change):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


NORM, DOWN = "model.norm.weight", "model.layers.1.mlp.down_proj.weight"


def replaced_by_pickle(p):
    (p / "model.safetensors").unlink()
    (p / "pytorch_model.bin").write_bytes(b"x")


DAMAGE = {
    "unknown family": (lambda p: edit(p, model_type="lama"), "model_type 'lama' is not known here"),
    "no family": (lambda p: edit(p, model_type="DROP"), "model_type None"),
    "a list of families": (lambda p: edit(p, model_type=["llama"]), "is no name"),
    "missing field": (lambda p: edit(p, hidden_size="DROP"), "no field 'hidden_size'"),
    "wrong type": (lambda p: edit(p, hidden_size="big"), "config.json"),
    "another rope": (
        lambda p: edit(p, rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}),
        "rope_type='spiral' is not supported: choose from default, linear",
    ),
    "a rope without its factor": (
        lambda p: edit(p, rope_parameters={"rope_type": "linear", "rope_theta": 1e4}),
        "rope_type='linear' have no 'factor'",
    ),
    "4-bit weights": (
        lambda p: edit(p, quantization_config={"quant_method": "mxfp4"}),
        "quantization_config=",
    ),
    "another activation": (
        lambda p: edit(p, hidden_act="gelu"),
        "activation 'gelu' is not supported",
    ),
    "not JSON": (lambda p: (p / "config.json").write_text("{"), "not a readable JSON object"),
    "deep JSON": (
        lambda p: (p / "config.json").write_text("[" * 100_000),
        "not a readable JSON object",
    ),
    "no config": (lambda p: (p / "config.json").unlink(), "holds no config.json"),
    "missing tensor": (lambda p: rewrite(p, lambda t: t.pop(NORM)), f"tensor {NORM} is missing"),
    "extra tensor": (
        lambda p: rewrite(p, lambda t: t.update(extra=np.zeros(3, np.float32))),
        "tensor extra is not part of a llama",
    ),
    "wrong shape": (
        lambda p: rewrite(p, lambda t: t.update({DOWN: t[DOWN].T.copy()})),
        rf"tensor {DOWN} has shape \[24, 16\].*asks for \[16, 24\]",
    ),
    "config of another size": (lambda p: edit(p, intermediate_size=32), "has shape .* asks for"),
    "a pickle": (replaced_by_pickle, "pytorch_model.bin is a pickle"),
    "not safetensors": (
        lambda p: (p / "model.safetensors").write_bytes(b"\x80\x04garbage" * 9),
        "not a readable safetensors file",
    ),
    "truncated": (
        lambda p: (p / "model.safetensors").write_bytes(
            (p / "model.safetensors").read_bytes()[:-50]
        ),
        "not a readable safetensors",
    ),
}


def test_layers_that_predict_further_tokens_are_left_alone(llama):
    """As many as the config says."""
    rewrite(llama, lambda t: t.update({"model.layers.2.eh_proj.weight": np.zeros(3, np.float32)}))
    with pytest.raises(ConfigError, match="model.layers.2.eh_proj.weight is not part of a llama"):
        folder.load(str(llama))
    edit(llama, num_nextn_predict_layers=1)
    assert folder.load(str(llama))[0].n_layers == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage, llama):
    change, words = DAMAGE[damage]
    change(llama)
    with pytest.raises(ConfigError, match=words):
        folder.load(str(llama))


def logits(tmp_path, llama, ids, **flags):
    np.save(tmp_path / "t.npy", ids)
    given = {"hf_dir": llama, "tokens": tmp_path / "t.npy", "out": tmp_path / "o.npy", **flags}
    return cli.main(["logits", *(f"--{k}={v}" for k, v in given.items())])


def test_logits_verb(tmp_path, llama, capsys):
    assert logits(tmp_path, llama, np.arange(10).reshape(2, 5)) == 0
    out = np.load(tmp_path / "o.npy")
    assert out.shape == (2, 5, 40) and out.dtype == np.float32


@pytest.mark.parametrize(
    "tokens,flags,words",
    [
        (np.full((1, 3), 40), {}, "holds id 40: the vocabulary is 0 .. 39"),
        (np.full((1, 3), -1), {}, "holds id -1"),
        (np.zeros(3, int), {}, "shape (batch, time)"),
        (np.zeros((1, 3)), {}, "integers"),
        (np.zeros((1, 3), int), {"out": "/nowhere/o.npy"}, "cannot be written"),
        (np.zeros((1, 3), int), {"tokens": "/nowhere.npy"}, "not a readable .npy"),
        (np.array([[object()]], dtype=object), {}, "not a readable .npy"),
        (np.zeros((1, 3), int), {"hf_dir": "/nowhere"}, "holds no config.json"),
    ],
)
def test_logits_verb_on_bad_input(tokens, flags, words, tmp_path, llama, capsys):
    assert logits(tmp_path, llama, tokens, **flags) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not (tmp_path / "o.npy").exists()


def test_beyond_learned_positions(tmp_path, capsys):
    folder.save(str(tmp_path / "g"), GPT2, variables(GPT2))
    assert logits(tmp_path, tmp_path / "g", np.zeros((1, 25), int)) == 2
    assert "24 learned positions" in capsys.readouterr().err


def test_an_export_overwrites_nothing(llama):
    with pytest.raises(ConfigError, match="already holds config.json"):
        folder.save(str(llama), BASE, variables(BASE))


@pytest.mark.parametrize(
    "more,words",
    [
        (["--init_from=/nowhere"], "holds no config.json"),
        (["--set=model.dense.d_ff=32"], "asks for"),
        (["--set=data.source=synthetic"], "model.vocab_size"),
    ],
)
def test_init_from_on_bad_input(more, words, llama, tmp_path, capsys):
    argv = [
        "train",
        "--config=tiny_dense",
        f"--workdir={tmp_path}/r",
        f"--init_from={llama}",
        "--set=where.mesh=data=1",
        *more,
    ]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not (tmp_path / "r").exists()


def test_weights_are_part_of_the_identity(llama, tmp_path, capsys):
    """The same command with other weights in the folder is refused, not mixed."""
    argv = [
        "train",
        "--config=tiny_dense",
        f"--init_from={llama}",
        "--set=model.vocab_size=320",
        "--set=data.source=synthetic",
    ]
    assert cli.main([*argv, f"--workdir={tmp_path}/r"]) == 2  # the table has 40 rows
    assert "embed_tokens" in capsys.readouterr().err


def test_every_family_reads_what_it_writes():
    for name, family in FAMILIES.items():
        assert {"read", "write", "tensors"} <= set(family._fields) and family.architecture.endswith(
            ("LMHeadModel", "ForCausalLM")
        ), name


def test_a_parametrised_model_is_exported_with_its_multipliers_or_refused(tmp_path):
    """Granite has fields for them, to the last bit; others have none, and they are named."""
    scaled = {"d_model": 64, "parametrisation": "completep(base_width=16,base_head=8,base_depth=1)"}
    more = {"vocab_size": 32, "seq_len": 16, "tied": True, **scaled}
    m = parts.model("attention(n_heads=4)/dense(activation=swiglu)", **more)
    held = variables(m)
    assert folder.save(str(tmp_path / "hf"), m, held) == "granite"
    again, theirs = folder.load(str(tmp_path / "hf"))
    t = tokens(m, 2)[:, :-1]
    a, b = (LM(x, Execution()).apply(v, t)[0] for x, v in ((m, held), (again, theirs)))
    np.testing.assert_array_equal(a, b)
    other = {**more, "pattern": "attention(n_heads=4,qk_norm=head)/dense(activation=swiglu)"}
    plain = parts.model(**{**other, "parametrisation": "standard"})
    assert folder.save(str(tmp_path / "plain"), plain, variables(plain)) == "qwen3"
    m = parts.model(**other)
    with pytest.raises(ConfigError, match="no Hugging Face family here computes this model"):
        folder.save(str(tmp_path / "no"), m, variables(m))
