"""Parameters of released models from the numbers of their config.json alone: as published, and as
transformers declares them on torch's meta device, which allocates nothing (extra `parity`).

No test fetches a config.json. Its numbers are typed here; that they are right is borne out by the
published sizes alone.
"""

import json

import pytest

from launch.huggingface import folder
from model import account

YARN_OSS = {
    "rope_type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}


def pythia(layers: int, width: int, heads: int, vocab: int = 50304) -> dict:
    """Biderman et al. 2023 (arXiv 2304.01373), table 1; vocabularies: EleutherAI/pythia-*."""
    return {
        "model_type": "gpt_neox",
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    }


def dense(family: str, layers: int, width: int, heads: tuple, hidden: int, vocab: int, **more):
    return {
        "model_type": family,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "intermediate_size": hidden,
        "vocab_size": vocab,
        **more,
    }


def gpt_oss(layers: int, experts: int) -> dict:
    """openai/gpt-oss-20b and -120b, config.json."""
    own = {"head_dim": 64, "num_local_experts": experts, "num_experts_per_tok": 4}
    own |= {"rope_theta": 150000, "rope_scaling": YARN_OSS, "sliding_window": 128}
    own["quantization_config"] = {"quant_method": "mxfp4"}
    return dense("gpt_oss", layers, 2880, (64, 8), 2880, 201088, **own)


# deepseek-ai/DeepSeek-V2-Lite, config.json
LITE = dense(
    "deepseek_v2",
    27,
    2048,
    (16, 16),
    10944,
    102400,
    moe_intermediate_size=1408,
    n_routed_experts=64,
    n_shared_experts=2,
    num_experts_per_tok=6,
    first_k_dense_replace=1,
    kv_lora_rank=512,
    q_lora_rank=None,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    topk_method="greedy",
    n_group=1,
    topk_group=1,
    max_position_embeddings=163840,
    rope_scaling={
        "type": "yarn",
        "factor": 40,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
    },
)
# name -> (config.json, parameters, those that are published, and where); active ones by token
SIZES = {
    "Pythia 70M": (pythia(6, 512, 8), 70_426_624, "18,915,328 non-embedding"),
    "Pythia 160M": (pythia(12, 768, 12), 162_322_944, "85,056,000 non-embedding"),
    "Pythia 410M": (pythia(24, 1024, 16), 405_334_016, "302,311,424 non-embedding"),
    "Pythia 1B": (pythia(16, 2048, 8), 1_011_781_632, "805,736,448 non-embedding"),
    "Pythia 1.4B": (pythia(24, 2048, 16), 1_414_647_808, "1,208,602,624 non-embedding"),
    "Pythia 2.8B": (pythia(32, 2560, 32), 2_775_208_960, "2,517,652,480 non-embedding"),
    "Pythia 6.9B": (pythia(32, 4096, 32, 50432), 6_857_302_016, "6,444,163,072 non-embedding"),
    "Pythia 12B": (pythia(36, 5120, 40, 50688), 11_846_072_320, "11,327,027,200 non-embedding"),
    "OLMo 2 7B": (
        dense("olmo2", 32, 4096, (32, 32), 11008, 100352, rope_theta=500000),
        7_298_617_344,
        "7.3B",  # arXiv 2501.00656
    ),
    "Gemma 2 2B": (
        dense("gemma2", 26, 2304, (8, 4), 9216, 256000, head_dim=256),
        2_614_341_888,
        "2.6B",  # arXiv 2408.00118, table 2: 590,118,912 and 2,024,517,888
    ),
    "Qwen2-1.5B": (
        dense("qwen2", 28, 1536, (12, 2), 8960, 151936, rope_theta=1e6, tie_word_embeddings=True),
        1_543_714_304,
        "1.5B",  # arXiv 2407.10671
    ),
    "gpt-oss-20b": (gpt_oss(24, 32), 20_914_757_184, "20.9B"),  # arXiv 2508.10925
    "gpt-oss-120b": (gpt_oss(36, 128), 116_829_156_672, "116.8B"),
    "DeepSeek-V2-Lite": (LITE, 15_706_484_224, "15.7B"),  # arXiv 2405.04434, appendix B
}
# of one token, without the embedding's lookup
ACTIVE = {"gpt-oss-20b": 3.61e9, "gpt-oss-120b": 5.13e9, "DeepSeek-V2-Lite": 2.4e9}


def read(tmp_path, config: dict):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return folder.read_config(str(tmp_path), counting=True)


def _published(text: str) -> tuple[float, float]:
    """(number, its rounding) of 18,915,328 or 7.3B."""
    number = text.partition(" ")[0].replace(",", "")
    if not number.endswith("B"):
        return float(number), 0
    value = float(number.removesuffix("B"))
    return value * 1e9, 0.5e9 * 10 ** -len(number.removesuffix("B").partition(".")[2])


@pytest.mark.parametrize("name", SIZES)
def test_as_published(name, tmp_path):
    config, total, published = SIZES[name]
    _, m, ignored = read(tmp_path, config)
    p = account.parameters(m)
    assert p["total"] == total
    assert bool(ignored) == ("quantization_config" in config)
    number, rounding = _published(published)
    head = p["groups"]["head"]  # Pythia's cards leave out both ends
    counted = p["non_embedding"] - head if "non-embedding" in published else total
    assert abs(counted - number) <= rounding
    if name in ACTIVE:
        counted = p["active"] - p["embedding"]
        assert counted == pytest.approx(ACTIVE[name], rel=0.03)


@pytest.mark.parametrize("name", SIZES)
def test_as_transformers_declares_them(name):
    config = {**SIZES[name][0]}
    config.pop("quantization_config", None)
    assert declared(config) == SIZES[name][1]


def declared(config: dict) -> int:
    """Parameters of the model that transformers makes of a config."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    own = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(own)
    return sum(p.numel() for p in theirs.parameters())


def test_a_rope_that_is_passed_over_is_named(tmp_path):
    """Also that of sliding attention alone, which has numbers of its own."""
    config = dense("gemma3_text", 6, 64, (4, 2), 128, 512, head_dim=16)
    kinds = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "odd"}}
    assert "'odd'" in " ".join(read(tmp_path, {**config, "rope_parameters": kinds})[2])
