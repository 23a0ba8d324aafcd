"""Small configurations of the families that released suites are of (transformers_models.py)."""

SMALL = dict(
    vocab_size=67,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=40,
)
GROUPED = dict(SMALL, intermediate_size=48, num_key_value_heads=2)
PADDED = dict(GROUPED, pad_token_id=0)
SCALED = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
SCALED["original_max_position_embeddings"] = 16
LATENT = dict(
    kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=6, num_key_value_heads=4
)
SHORT, LONG = [1.0, 1.2], [1.5, 4.0]

# name -> (family, fields of its config class)
RELEASED = {
    "gpt_neox": ("gpt_neox", dict(SMALL, intermediate_size=48, rotary_pct=0.5)),
    "gpt_neox-in turn": (
        "gpt_neox",
        dict(SMALL, intermediate_size=48, use_parallel_residual=False, attention_bias=False),
    ),
    "olmo2": ("olmo2", dict(PADDED)),
    "olmo3": ("olmo3", dict(PADDED, num_hidden_layers=4, sliding_window=5)),
    "olmo3-scaled": (
        "olmo3",
        dict(
            PADDED,
            num_hidden_layers=4,
            sliding_window=5,
            rope_parameters={
                "full_attention": {**SCALED, "attention_factor": 1.2},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
    ),
    "qwen2": ("qwen2", dict(GROUPED, tie_word_embeddings=True)),
    "qwen2-scaled": (
        "qwen2",
        dict(
            GROUPED,
            rope_parameters=SCALED,
            use_sliding_window=True,
            sliding_window=6,
            max_window_layers=2,
        ),
    ),
    "qwen2_moe": (
        "qwen2_moe",
        dict(
            GROUPED,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=48,
            mlp_only_layers=[1],
        ),
    ),
    "gemma": ("gemma", dict(PADDED, head_dim=12)),
    "gemma2": (
        "gemma2",
        dict(
            PADDED,
            num_hidden_layers=4,
            head_dim=12,
            query_pre_attn_scalar=20,
            sliding_window=5,
            attn_logit_softcapping=4.0,
            final_logit_softcapping=6.0,
        ),
    ),
    "gemma3_text": (
        "gemma3_text",
        dict(
            PADDED,
            num_hidden_layers=6,
            head_dim=8,
            query_pre_attn_scalar=20,
            sliding_window=5,
            layer_types=(["sliding_attention"] * 2 + ["full_attention"]) * 2,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
    ),
    "gpt_oss": (
        "gpt_oss",
        dict(
            GROUPED,
            num_hidden_layers=4,
            head_dim=8,
            sliding_window=5,
            num_local_experts=6,
            num_experts_per_tok=2,
            swiglu_limit=0.7,
            rope_parameters={**SCALED, "truncate": False, "rope_theta": 150_000.0},
        ),
    ),
    "deepseek_v2": (
        "deepseek_v2",
        dict(
            GROUPED,
            **LATENT,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            n_routed_experts=8,
            n_group=4,
            topk_group=2,
            topk_method="group_limited_greedy",
            routed_scaling_factor=3.0,
            q_lora_rank=12,
            first_k_dense_replace=1,
            rope_parameters={**SCALED, "mscale": 0.7, "mscale_all_dim": 0.5},
        ),
    ),
    "deepseek_v2-plain": (
        "deepseek_v2",
        dict(
            GROUPED,
            **LATENT,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            n_routed_experts=6,
            q_lora_rank=None,
            first_k_dense_replace=1,
        ),
    ),
    "smollm3": (
        "smollm3",
        dict(PADDED, num_hidden_layers=4, no_rope_layer_interval=2, rope_theta=5000.0),
    ),
    "phi3": ("phi3", dict(PADDED, sliding_window=7, original_max_position_embeddings=40)),
    "phi3-long": (
        "phi3",
        dict(
            PADDED,
            original_max_position_embeddings=16,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.5,
                "short_factor": SHORT,
                "long_factor": LONG,
                "original_max_position_embeddings": 16,
            },
        ),
    ),
    "granite": (
        "granite",
        dict(
            GROUPED,
            embedding_multiplier=3.0,
            logits_scaling=4.0,
            residual_multiplier=0.3,
            attention_multiplier=0.2,
            mlp_bias=True,
        ),
    ),
    "granitemoe": (
        "granitemoe",
        dict(
            GROUPED,
            num_local_experts=6,
            num_experts_per_tok=2,
            embedding_multiplier=3.0,
            logits_scaling=4.0,
            residual_multiplier=0.3,
            attention_multiplier=0.2,
        ),
    ),
    "starcoder2": ("starcoder2", dict(GROUPED, sliding_window=7)),
    "stablelm": ("stablelm", dict(GROUPED, partial_rotary_factor=0.5)),
    "stablelm-parallel": (
        "stablelm",
        dict(GROUPED, use_qkv_bias=True, use_parallel_residual=True),
    ),
    "falcon": ("falcon", dict(SMALL, multi_query=True, parallel_attn=True)),
    "falcon-new": ("falcon", dict(SMALL, new_decoder_architecture=True, num_kv_heads=2)),
    "falcon-in turn": ("falcon", dict(SMALL, multi_query=False, parallel_attn=False, bias=True)),
    "cohere": ("cohere", dict(PADDED, logit_scale=0.3)),
    "glm4_moe": (
        "glm4_moe",
        dict(
            GROUPED,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            n_routed_experts=8,
            n_group=4,
            topk_group=2,
            head_dim=8,
            attention_bias=True,
            use_qk_norm=True,
            routed_scaling_factor=1.5,
        ),
    ),
    "dbrx": (
        "dbrx",
        dict(
            vocab_size=67,
            d_model=32,
            n_heads=4,
            n_layers=3,
            max_seq_len=40,
            attn_config={"clip_qkv": 1.5, "kv_n_heads": 2, "rope_theta": 1e4},
            ffn_config={"moe_num_experts": 6, "moe_top_k": 2, "ffn_hidden_size": 24},
        ),
    ),
    "llama-3.1": (
        "llama",
        dict(
            GROUPED,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ),
    ),
}
