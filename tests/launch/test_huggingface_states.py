"""Families whose layers have a state, without Hugging Face: our models there and back, and every
command on a folder of theirs.
"""

import jax
import numpy as np
import pytest

from experiments import cli
from launch.huggingface import comparing, folder
from model import parts
from tests.model.test_model import variables

GATED = "dense(activation=swiglu,d_ff=24)"
EXPERTS = "moe(activation=swiglu,n_experts=4,d_expert=24,"
WIDE = "dense(activation=geglu,bias=true)"
ROUTED = f"{EXPERTS}n_shared=1,shared_gate=true)"
CENTRED = "rmsnorm(centred=true)"
# layers, and fields of the model
MODELS = {
    "mamba": ("mamba(d_state=4)/no_mlp", dict(positions="none")),
    "falcon_mamba": ("mamba(d_state=4,thin_norm=plain)/no_mlp", dict(positions="none")),
    "mamba2": ("mamba2(n_heads=4,d_state=4,norm_eps=1e-6)/no_mlp", dict(positions="none")),
    "rwkv": ("rwkv4/channel_mix", dict(positions="none", norm="layernorm", embed_norm=True)),
    "jamba": (
        f"mamba(thin_norm=scaled,norm_eps=1e-6)/{GATED}, attention(n_heads=2)/{EXPERTS}"
        "renormalise=false)",
        dict(positions="none"),
    ),
    "bamba": (
        f"mamba2(n_heads=4,norm_eps=1e-6)/{GATED}, attention(n_heads=2)/{GATED}",
        dict(positions="rope(fraction=0.5)"),
    ),
    "recurrent_gemma": (
        f"rg_lru(n_heads=2)/{WIDE}, attention(n_heads=2,n_kv_heads=1,window=8,out_bias=true)/"
        f"{WIDE}",
        dict(positions="rope(fraction=0.5)", norm=CENTRED, embed_scale=True, logit_cap=30.0,
             tied=True),
    ),
    "qwen3_next": (
        f"gated_delta(n_heads=2,norm_eps=1e-6)/{ROUTED}, attention(n_heads=2,gate=true,"
        f"qk_norm=head)/{ROUTED}",
        dict(positions="rope(fraction=0.25)", norm=CENTRED),
    ),
}  # fmt: skip


def made(name):
    layers, more = MODELS[name]
    shape = dict(d_model=16, n_layers=2, seq_len=24, vocab_size=256)
    m = parts.model(layers, **shape, **more)
    return m, variables(m)


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name, tmp_path):
    m, held = made(name)
    assert folder.family_of(m) == name == folder.save(str(tmp_path), m, held)
    again, back = folder.load(str(tmp_path))
    assert not comparing.differences(again, m) and not comparing.differences(m, again)
    assert jax.tree.structure(held) == jax.tree.structure(back)
    jax.tree.map(np.testing.assert_array_equal, held, back)


@pytest.mark.parametrize(
    "name", [n if n == "mamba" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_every_command(name, tmp_path, capsys):
    """Counted, computed, trained on, drawn from and exported, out of a folder."""
    folder.save(str(tmp_path / "hf"), *made(name))
    np.save(tmp_path / "t.npy", np.arange(20).reshape(2, 10))
    one = ["--set=where.mesh=data=1", "--set=where.tensorboard=false"]
    for argv in (
        ["count", f"--hf_dir={tmp_path}/hf"],
        [
            "logits",
            f"--hf_dir={tmp_path}/hf",
            f"--tokens={tmp_path}/t.npy",
            f"--out={tmp_path}/o.npy",
        ],
        [
            "train",
            "--config=tiny_dense",
            f"--init_from={tmp_path}/hf",
            f"--workdir={tmp_path}/run",
            "--set=horizon.steps=2",
            "--set=data.validation_windows=2",
            *one,
        ],
        ["sample", f"--run={tmp_path}/run", "--prompt=def ", "--tokens=4", "--temperature=0"],
        ["export", f"--run={tmp_path}/run", f"--hf_dir={tmp_path}/out"],
    ):
        assert cli.main(argv) == 0, capsys.readouterr().err
    assert np.load(tmp_path / "o.npy").shape == (2, 10, 256)
    assert folder.read_config(str(tmp_path / "out"))[0] == name


@pytest.mark.parametrize(
    "name,change,words",
    [
        ("mamba", ("mamba.conv_bias", "false"), ""),  # which the family has
        ("mamba2", ("mamba2.norm_eps", "0.1"), "nearest, mamba2, differs in model.mamba2.norm_eps"),
        ("rwkv", ("norm", "rmsnorm"), "model.norm='rmsnorm'"),
        ("jamba", ("positions", "rope"), "model.positions='rope'"),
        ("qwen3_next", ("attention.gate", "false"), "model.attention.gate=False"),
        ("qwen3_next", ("gated_delta.decay", "false"), "model.gated_delta.decay=False"),
        ("recurrent_gemma", ("logit_cap", "0.0"), "model.logit_cap=0.0"),
    ],
)
def test_what_no_family_has_is_named(name, change, words):
    m, _ = made(name)
    m = parts.set_field(m, *change)
    if not words:
        assert folder.family_of(m) == name
        return
    with pytest.raises(folder.ConfigError, match=words):
        folder.family_of(m)
