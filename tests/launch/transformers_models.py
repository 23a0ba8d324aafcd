"""Small models of transformers, one for each family and variant, in folders of their own."""

import os

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.launch.released_models import RELEASED

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
    "qwen3-some-windows": (
        "qwen3",
        dict(LLAMA, head_dim=8, use_sliding_window=True, sliding_window=6, max_window_layers=1),
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

DELTA = dict(
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=6,
    linear_value_head_dim=5,
)


RECURRENT = dict(vocab_size=67, hidden_size=32, num_hidden_layers=2)


# families of layers with a state
STATES = {
    "mamba": ("mamba", dict(RECURRENT, state_size=5)),
    "mamba-biased": (
        "mamba",
        dict(
            RECURRENT,
            state_size=4,
            time_step_rank=3,
            use_bias=True,
            use_conv_bias=False,
            tie_word_embeddings=False,
        ),
    ),
    "falcon_mamba": ("falcon_mamba", dict(RECURRENT, state_size=5, mixer_rms_eps=1e-3)),
    "mamba2": (
        "mamba2",
        dict(RECURRENT, state_size=6, num_heads=8, head_dim=8, n_groups=2, chunk_size=8),
    ),
    "mamba2-biased": (
        "mamba2",
        dict(
            RECURRENT,
            state_size=6,
            num_heads=4,
            head_dim=16,
            n_groups=1,
            chunk_size=8,
            layer_norm_epsilon=1e-2,
            use_bias=True,
            use_conv_bias=False,
            tie_word_embeddings=True,
        ),
    ),
    "rwkv": ("rwkv", dict(RECURRENT, context_length=40, intermediate_size=48)),
    "rwkv-rescaled": (
        "rwkv",
        dict(RECURRENT, context_length=40, num_hidden_layers=4, rescale_every=2),
    ),
}
# families with such layers and attention in turns
HYBRIDS = {
    "jamba": (
        "jamba",
        dict(
            LLAMA,
            num_hidden_layers=4,
            num_experts=4,
            mamba_d_state=5,
            attn_layer_period=4,
            attn_layer_offset=2,
        ),
    ),
    "jamba-dense": (
        "jamba",
        dict(
            LLAMA,
            num_experts=1,
            mamba_dt_rank=3,
            mamba_expand=1,
            attn_layer_period=3,
            attn_layer_offset=1,
            mamba_proj_bias=True,
        ),
    ),
    "recurrent_gemma": (
        "recurrent_gemma",
        dict(
            RECURRENT,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=1,
            intermediate_size=48,
            attention_window_size=6,
        ),
    ),
    "recurrent_gemma-wide": (
        "recurrent_gemma",
        dict(
            RECURRENT,
            num_attention_heads=2,
            intermediate_size=48,
            lru_width=40,
            attention_bias=True,
            block_types=["attention", "recurrent"],
        ),
    ),
    "qwen3_next": (
        "qwen3_next",
        dict(
            MOE,
            **DELTA,
            num_hidden_layers=4,
            num_experts=6,
            head_dim=16,
            shared_expert_intermediate_size=24,
        ),
    ),
    "qwen3_next-two-shared": (
        "qwen3_next",
        dict(
            MOE,
            **DELTA,
            num_experts=6,
            head_dim=8,
            attention_bias=True,
            norm_topk_prob=False,
            shared_expert_intermediate_size=48,
            layer_types=["full_attention", "linear_attention", "linear_attention"],
            mlp_only_layers=[1],
        ),
    ),
    "bamba": (
        "bamba",
        dict(
            LLAMA,
            attn_layer_indices=[1],
            mamba_n_heads=8,
            mamba_n_groups=2,
            mamba_d_state=6,
            mamba_chunk_size=8,
        ),
    ),
}


def tokens(batch=2, length=33, seed=0):
    return np.random.default_rng(seed).integers(0, 67, (batch, length)).astype(np.int32)


def build(name, path):
    """A tiny random model of transformers, saved in `path`; weights are scaled so that no logit is
    near zero.
    """
    family, fields = (CONFIGS | STATES | HYBRIDS | RELEASED)[name]
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


golden = pytest.mark.skipif(
    not os.path.isdir(GOLDEN), reason="the golden folders are not beside this checkout"
)


def logits(model, of=None):
    """A model's, of `tokens()` or of others."""
    with torch.no_grad():
        return model(torch.tensor(tokens() if of is None else of, dtype=torch.long)).logits.numpy()
