"""Parameters of released models whose layers have a state, from the numbers of their config.json
alone: as published, and as transformers declares them on torch's meta device, which allocates
nothing (extra `parity`).

No test fetches a config.json. Its numbers are typed here; that they are right is borne out by the
published sizes alone.
"""

import json

import pytest

from launch.config import ConfigError
from launch.huggingface import folder
from model import account
from tests.launch.test_published_sizes import declared, read

INFINITY = {"__float__": "Infinity"}


def mamba2(layers: int, width: int) -> dict:
    """state-spaces/mamba2-*, in transformers' names; sizes: arXiv 2405.21060, table 10."""
    return {
        "model_type": "mamba2",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_heads": width // 32,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 1,
        "vocab_size": 50288,
        "tie_word_embeddings": True,
        "time_step_limit": [0.0, INFINITY],
    }


# what the config.json of that name says, but for fields that decide neither count nor function
SIZES = {
    # state-spaces/mamba-130m-hf
    "mamba-130m": (
        {
            "model_type": "mamba",
            "hidden_size": 768,
            "intermediate_size": 1536,
            "num_hidden_layers": 24,
            "state_size": 16,
            "time_step_rank": 48,
            "vocab_size": 50280,
        },
        129_135_360,
        "129M",
    ),
    "mamba2-130m": (mamba2(24, 768), 128_989_632, "129M"),
    "mamba2-780m": (mamba2(48, 1536), 780_161_280, "780M"),
    # tiiuae/falcon-mamba-7b: `expand` does not hold there, intermediate_size does
    "falcon-mamba-7b": (
        {
            "model_type": "falcon_mamba",
            "expand": 16,
            "hidden_size": 4096,
            "intermediate_size": 8192,
            "num_hidden_layers": 64,
            "state_size": 16,
            "time_step_rank": 256,
            "tie_word_embeddings": False,
            "vocab_size": 65024,
        },
        7_272_665_088,
        "7.27B",
    ),
    # RWKV/rwkv-4-169m-pile
    "rwkv-4-169m": (
        {
            "model_type": "rwkv",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "vocab_size": 50277,
            "context_length": 1024,
            "rescale_every": 6,
        },
        169_342_464,
        "169M",
    ),
    # ai21labs/Jamba-v0.1
    "Jamba-v0.1": (
        {
            "model_type": "jamba",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_experts": 16,
            "num_experts_per_tok": 2,
            "attn_layer_period": 8,
            "attn_layer_offset": 4,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_dt_rank": 256,
            "vocab_size": 65536,
        },
        51_570_323_328,
        "51.6B",
    ),
    # google/recurrentgemma-2b
    "recurrentgemma-2b": (
        {
            "model_type": "recurrent_gemma",
            "_block_types": ["recurrent", "recurrent", "attention"],
            "embeddings_scale_by_sqrt_dim": True,
            "hidden_size": 2560,
            "intermediate_size": 15360,
            "num_hidden_layers": 26,
            "num_attention_heads": 10,
            "num_key_value_heads": 1,
            "lru_width": 2560,
            "partial_rotary_factor": 0.5,
            "vocab_size": 256000,
        },
        2_682_862_080,
        "2.68B",
    ),
    # Qwen/Qwen3-Next-80B-A3B: else what Qwen3NextConfig has by default
    "Qwen3-Next-80B-A3B": (
        {
            "model_type": "qwen3_next",
            "full_attention_interval": 4,
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 5120,
            "vocab_size": 151936,
        },
        79_674_391_296,
        "79.7B",
    ),
    # ibm-ai-platform/Bamba-9B
    "Bamba-9B": (
        {
            "model_type": "bamba",
            "attn_layer_indices": [9, 18, 27],
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "mamba_d_state": 128,
            "mamba_n_heads": 128,
            "vocab_size": 128256,
        },
        9_780_235_392,
        "9.78B",
    ),
}
# of one token. Jamba: arXiv 2403.19887. Qwen3-Next: "3B" in its name, which leaves out embedding
# and head; the digits are our own count of all
ACTIVE = {"Jamba-v0.1": 12e9, "Qwen3-Next-80B-A3B": 3.9e9}


@pytest.mark.parametrize("name", SIZES)
def test_as_published(name, tmp_path):
    config, total, published = SIZES[name]
    family, m, ignored = read(tmp_path, config)
    p = account.parameters(m)
    assert (p["total"], ignored) == (total, []) and family == config["model_type"]
    size = {"M": 1e6, "B": 1e9}[published[-1]]
    places = len(published[:-1].partition(".")[2])
    assert f"{total / size:.{places}f}" == published[:-1]
    if name in ACTIVE:
        assert p["active"] == pytest.approx(ACTIVE[name], rel=0.03)


@pytest.mark.parametrize("name", SIZES)
def test_as_transformers_declares_them(name):
    config = {k: v for k, v in SIZES[name][0].items() if v != [0.0, INFINITY]}  # the default
    assert declared(config) == SIZES[name][1]


@pytest.mark.parametrize(
    "name,change,words",
    [
        ("mamba-130m", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("mamba-130m", {"intermediate_size": 1000}, "no multiple of hidden_size=768"),
        ("mamba2-130m", {"time_step_limit": [0.0, 0.1]}, "time_step_limit=\\[0.0, 0.1\\]"),
        ("rwkv-4-169m", {"attention_hidden_size": 512}, "attention_hidden_size"),
        ("rwkv-4-169m", {"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon=0.001"),
        ("Jamba-v0.1", {"hidden_act": "relu"}, "'relu' is not supported"),
        ("Bamba-9B", {"mamba_d_head": 32}, "mamba_d_head=32 is not supported \\(only 64 or auto"),
        ("Bamba-9B", {"partial_rotary_factor": 1.0}, "partial_rotary_factor=1.0"),
        ("recurrentgemma-2b", {"_block_types": ["rnn"]}, "block_types with 'rnn'"),
        ("recurrentgemma-2b", {"hidden_activation": "relu"}, "hidden_activation='relu'"),
        ("Qwen3-Next-80B-A3B", {"layer_types": ["conv"] * 48}, "layer_types with 'conv'"),
        ("Qwen3-Next-80B-A3B", {"shared_expert_intermediate_size": 700}, "no multiple of moe_int"),
        ("mamba-130m", {"model_type": "reformer"}, "'reformer' is not read: its chunks"),
        ("mamba-130m", {"model_type": "big_bird"}, "'big_bird' is not read: its blocks"),
    ],
)
def test_what_is_not_computed_is_named(name, change, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SIZES[name][0], **change}))
    with pytest.raises(ConfigError, match=words) as e:
        folder.read_config(str(tmp_path))
    assert "\n" not in str(e.value)
