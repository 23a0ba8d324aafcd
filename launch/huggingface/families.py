"""The families: one entry each, of how its config is read and written, which fields must have one
value, and where its tensors stand.
"""

from collections.abc import Callable
from typing import NamedTuple

from launch.huggingface import config_writing, decoders, llamas
from launch.huggingface.tensors import linear


class Family(NamedTuple):
    """read(config) -> Model, write(view) -> config, tensors(view) -> entries, of a model as
    `config_writing.view` has it. `defaults` stand in for fields that config.json leaves out, as in
    the family's own class; `fixed` are fields that must have this value.
    """

    architecture: str
    read: Callable
    write: Callable
    tensors: Callable
    defaults: dict
    fixed: dict


_LLAMA = {
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "head_dim": None,
}
_MISTRAL = {**_LLAMA, "num_key_value_heads": 8, "max_position_embeddings": 131_072}
_QWEN = {**_LLAMA, "max_position_embeddings": 32_768, "sliding_window": 4096}
_DEEPSEEK = {
    **_LLAMA,
    "max_position_embeddings": 4096,
    "first_k_dense_replace": 3,
    "n_shared_experts": 1,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "rope_interleave": True,
}
_TIED = {"tie_word_embeddings": True}

FAMILIES = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        decoders.read_gpt2,
        decoders.write_gpt2,
        decoders.tensors_gpt2,
        {
            **_TIED,
            "n_positions": 1024,
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
        },
        {
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
    ),
    "opt": Family(
        "OPTForCausalLM",
        decoders.read_opt,
        decoders.write_opt,
        decoders.tensors_opt,
        {
            **_TIED,
            "max_position_embeddings": 2048,
            "do_layer_norm_before": True,
            "activation_function": "relu",
            "enable_bias": True,
        },
        {"_remove_final_layer_norm": False, "layer_norm_elementwise_affine": True},
    ),
    "xglm": Family(
        "XGLMForCausalLM",
        decoders.read_xglm,
        decoders.write_xglm,
        decoders.tensors_xglm,
        {
            **_TIED,
            "max_position_embeddings": 2048,
            "activation_function": "gelu",
            "scale_embedding": True,
        },
        {"add_cross_attention": False},
    ),
    "bloom": Family(
        "BloomForCausalLM",
        decoders.read_bloom,
        decoders.write_bloom,
        decoders.tensors_bloom,
        {**_TIED, "layer_norm_epsilon": 1e-5},
        {"apply_residual_connection_post_layernorm": False},
    ),
    "llama": Family(
        "LlamaForCausalLM",
        llamas.read_llama,
        llamas.write_llama,
        llamas.tensors,
        {**_LLAMA, "attention_bias": False, "mlp_bias": False},
        {},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        llamas.read_mistral,
        llamas.write_mistral,
        llamas.tensors,
        {**_MISTRAL, "sliding_window": 4096},
        {},
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        llamas.read_qwen3,
        llamas.write_qwen3,
        llamas.tensors,
        {**_QWEN, "head_dim": 128},
        {},
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        llamas.read_mixtral,
        llamas.write_mixtral,
        llamas.tensors_mixtral,
        {
            **_MISTRAL,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "default_theta": 1e6,
        },
        {"router_jitter_noise": 0.0},
    ),
    "olmoe": Family(
        "OlmoeForCausalLM",
        llamas.read_olmoe,
        llamas.write_olmoe,
        llamas.tensors,
        {
            **_LLAMA,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "norm_topk_prob": False,
        },
        {"clip_qkv": None},
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        llamas.read_qwen3_moe,
        llamas.write_qwen3_moe,
        llamas.tensors,
        {
            **_QWEN,
            "num_key_value_heads": 4,
            "norm_topk_prob": False,
            "mlp_only_layers": None,
            "decoder_sparse_step": 1,
            "num_experts_per_tok": 8,
        },
        {},
    ),
    "deepseek_v3": Family(
        "DeepseekV3ForCausalLM",
        llamas.read_deepseek_v3,
        llamas.write_deepseek_v3,
        llamas.tensors,
        _DEEPSEEK,
        {"scoring_func": "sigmoid"},
    ),
}


def entries(family: str, c) -> list:
    """Where every tensor of `c` stands in a file of `family`; the untied head is the same in all of
    them.
    """
    own = FAMILIES[family].tensors(config_writing.view(c))
    return own if c.tied else [*own, linear("params/head/kernel", "lm_head.weight")]
