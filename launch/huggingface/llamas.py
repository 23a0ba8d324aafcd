"""Families with RMSNorm, rotary positions and a gated MLP, dense or of experts: llama, mistral,
qwen3, mixtral, olmoe, qwen3_moe, deepseek_v3. One reader, one writer and one table of tensors; a
family is what it adds to them.
"""

from types import SimpleNamespace

from launch.config import ConfigError
from launch.huggingface import flat
from launch.huggingface.config import Config, activation, named, rope
from launch.huggingface.tensors import (
    Entry,
    fused,
    layers,
    linear,
    norm,
    plain,
    projection,
    stacked,
    vector,
)
from model.config import Model


def _common(cfg: Config) -> dict:
    heads = cfg["num_attention_heads"]
    return {
        "vocab_size": cfg["vocab_size"],
        "seq_len": cfg["max_position_embeddings"],
        "d_model": cfg["hidden_size"],
        "n_layers": cfg["num_hidden_layers"],
        "n_heads": heads,
        "n_kv_heads": cfg.get("num_key_value_heads") or heads,
        "d_head": cfg.get("head_dim") or cfg["hidden_size"] // heads,
        "d_ff": cfg["intermediate_size"],
        "norm": "rmsnorm",
        "norm_eps": cfg["rms_norm_eps"],
        "activation": activation(cfg["hidden_act"], gated=True),
        "tied": cfg["tie_word_embeddings"],
        "qkv_bias": bool(cfg.get("attention_bias")),
        "out_bias": bool(cfg.get("attention_bias")),
        **rope(cfg),
    }


def read_llama(cfg: Config) -> Model:
    return flat.model(**_common(cfg), mlp_bias=cfg["mlp_bias"])


def read_mistral(cfg: Config) -> Model:
    return flat.model(**_common(cfg), window=cfg["sliding_window"] or 0)


def _qwen_window(cfg: Config) -> int:
    """The window of all layers; a config that has one in some layers only is refused."""
    kinds = set(cfg.get("layer_types") or [])
    if not cfg.get("use_sliding_window") and "sliding_attention" not in kinds:
        return 0
    if kinds != {"sliding_attention"}:
        cfg.refuse("use_sliding_window in some layers only is not supported", harmless=True)
        return 0
    return cfg["sliding_window"] or 0


def read_qwen3(cfg: Config) -> Model:
    return flat.model(**_common(cfg), qk_norm="head", window=_qwen_window(cfg))


def _experts(cfg: Config, n: str, width: str) -> dict:
    return {
        "n_experts": cfg[n],
        "top_k": cfg["num_experts_per_tok"],
        "d_expert": cfg[width],
        "pattern": ("attention/moe",),
    }


def read_mixtral(cfg: Config) -> Model:
    moe = _experts(cfg, "num_local_experts", "intermediate_size")
    return flat.model(
        **_common(cfg), **moe, window=cfg["sliding_window"] or 0, balance_scope="model"
    )


def read_olmoe(cfg: Config) -> Model:
    moe = _experts(cfg, "num_experts", "intermediate_size")
    return flat.model(
        **_common(cfg),
        **moe,
        qk_norm="full",
        renormalise=cfg["norm_topk_prob"],
        balance_scope="model",
    )


def read_qwen3_moe(cfg: Config) -> Model:
    moe = _experts(
        cfg,
        "num_local_experts" if "num_local_experts" in cfg else "num_experts",
        "moe_intermediate_size",
    )
    dense = set(cfg["mlp_only_layers"] or [])
    sparse = [
        i not in dense and (i + 1) % cfg["decoder_sparse_step"] == 0
        for i in range(cfg["num_hidden_layers"])
    ]
    moe["pattern"] = shortest([f"attention/{'moe' if s else 'dense'}" for s in sparse])
    return flat.model(
        **_common(cfg),
        **moe,
        qk_norm="head",
        window=_qwen_window(cfg),
        renormalise=cfg["norm_topk_prob"],
        balance_scope="model",
    )


def shortest(entries: list[str]) -> tuple[str, ...]:
    """The shortest pattern that tiles to `entries`."""
    for n in range(1, len(entries) + 1):
        if len(entries) % n == 0 and entries == entries[:n] * (len(entries) // n):
            return tuple(entries[:n])
    return tuple(entries)


def read_deepseek_v3(cfg: Config) -> Model:
    common = _common(cfg)
    if common["qkv_bias"]:
        raise ConfigError("config.json: attention_bias=True is not supported for deepseek_v3")
    first = min(cfg["first_k_dense_replace"] or 0, cfg["num_hidden_layers"])
    sparse = first < cfg["num_hidden_layers"]
    return flat.model(
        **{**common, "n_kv_heads": 0, "d_head": cfg["qk_nope_head_dim"]},
        pattern=("latent/moe",) if sparse else ("latent/dense",),
        first_layers=("latent/dense",) * first if sparse else (),
        rope_interleaved=cfg["rope_interleave"],
        q_rank=cfg["q_lora_rank"] or 0,
        kv_rank=cfg["kv_lora_rank"],
        d_rope=cfg["qk_rope_head_dim"],
        d_value=cfg["v_head_dim"],
        n_experts=cfg["n_routed_experts"],
        top_k=cfg["num_experts_per_tok"],
        d_expert=cfg["moe_intermediate_size"],
        n_shared=cfg["n_shared_experts"],
        router="sigmoid",
        renormalise=cfg["norm_topk_prob"],
        gate_scale=float(cfg["routed_scaling_factor"]),
        expert_groups=cfg["n_group"] or 1,
        top_groups=cfg["topk_group"] or 1,
        selection_bias=True,
    )


def _write(c: SimpleNamespace) -> dict:
    return {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.seq_len,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.d_head,
        "intermediate_size": c.d_ff,
        "rms_norm_eps": c.norm_eps,
        "hidden_act": named(c.activation),
        "tie_word_embeddings": c.tied,
        "attention_bias": c.qkv_bias,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
    }


def write_llama(c: SimpleNamespace) -> dict:
    return {**_write(c), "mlp_bias": c.mlp_bias}


def write_mistral(c: SimpleNamespace) -> dict:
    return {**_write(c), "sliding_window": c.window or None}


def write_qwen3(c: SimpleNamespace) -> dict:
    kinds = ["sliding_attention" if c.window else "full_attention"] * c.n_layers
    return {
        **_write(c),
        "use_sliding_window": bool(c.window),
        "sliding_window": c.window or None,
        "max_window_layers": 0,
        "layer_types": kinds,
    }


def write_mixtral(c: SimpleNamespace) -> dict:
    moe = {
        "num_local_experts": c.n_experts,
        "num_experts_per_tok": c.top_k,
        "intermediate_size": c.d_expert,
    }
    return {**_write(c), **moe, "sliding_window": c.window or None}


def write_olmoe(c: SimpleNamespace) -> dict:
    moe = {
        "num_experts": c.n_experts,
        "num_experts_per_tok": c.top_k,
        "intermediate_size": c.d_expert,
    }
    return {**_write(c), **moe, "norm_topk_prob": c.renormalise}


def write_qwen3_moe(c: SimpleNamespace) -> dict:
    moe = {
        "num_experts": c.n_experts,
        "num_experts_per_tok": c.top_k,
        "moe_intermediate_size": c.d_expert,
    }
    dense = [i for i, (_, mlp) in enumerate(c.kinds) if mlp == "dense"]
    return {
        **_write(c),
        **moe,
        "norm_topk_prob": c.renormalise,
        "mlp_only_layers": dense,
        "decoder_sparse_step": 1,
    }


def write_deepseek_v3(c: SimpleNamespace) -> dict:
    own = {
        "first_k_dense_replace": sum(mlp == "dense" for _, mlp in c.kinds),
        "head_dim": c.d_rope,
        "rope_interleave": c.rope_interleaved,
        "q_lora_rank": c.q_rank or None,
        "kv_lora_rank": c.kv_rank,
        "qk_rope_head_dim": c.d_rope,
        "qk_nope_head_dim": c.d_head,
        "v_head_dim": c.d_value,
        "n_routed_experts": c.n_experts,
        "num_experts_per_tok": c.top_k,
        "moe_intermediate_size": c.d_expert,
        "n_shared_experts": c.n_shared,
        "norm_topk_prob": c.renormalise,
        "routed_scaling_factor": c.gate_scale,
        "n_group": c.expert_groups,
        "topk_group": c.top_groups,
        "num_nextn_predict_layers": 0,
    }
    return {**_write(c), **own}


def _attention(c: SimpleNamespace, p: str, t: str) -> list[Entry]:
    out = []
    for x in "qkv":
        out += projection(f"{p}/{x}", f"{t}.{x}_proj", 1, c.qkv_bias)
        if c.qk_norm != "none" and x != "v":
            out += norm(f"{p}/norm_{x}", f"{t}.{x}_norm", False)
    return out + projection(f"{p}/out", f"{t}.o_proj", 2, c.out_bias)


def _latent(c: SimpleNamespace, p: str, t: str) -> list[Entry]:
    out = [
        fused(
            [f"params/{p}/kv_down/kernel", f"params/{p}/k_rope/kernel"],
            f"{t}.kv_a_proj_with_mqa.weight",
            1,
            True,
        )
    ]
    out += norm(f"{p}/norm_kv", f"{t}.kv_a_layernorm", False) + projection(
        f"{p}/kv", f"{t}.kv_b_proj"
    )
    if c.q_rank:
        out += projection(f"{p}/q_down", f"{t}.q_a_proj") + norm(
            f"{p}/norm_q", f"{t}.q_a_layernorm", False
        )
    return (
        out
        + projection(f"{p}/q", f"{t}.q_b_proj" if c.q_rank else f"{t}.q_proj")
        + projection(f"{p}/out", f"{t}.o_proj", 2)
    )


GATED = {"gate": "gate_proj", "in": "up_proj", "out": "down_proj"}


def _dense(p: str, t: str, bias: bool) -> list[Entry]:
    return [
        e
        for ours, theirs in GATED.items()
        for e in projection(f"{p}/{ours}", f"{t}.{theirs}", 1, bias)
    ]


def _moe(c: SimpleNamespace, p: str, t: str, names: dict) -> list[Entry]:
    out = [linear(f"params/{p}/router", f"{t}.gate.weight")]
    for ours, theirs in names.items():
        out.append(
            stacked(
                f"params/{p}/{ours}",
                [f"{t}.experts.{e}.{theirs}.weight" for e in range(c.n_experts)],
            )
        )
    if c.selection_bias:
        out.append(vector(f"buffers/{p}/selection_bias", f"{t}.gate.e_score_correction_bias"))
    return out + (_dense(f"{p}/shared", f"{t}.shared_experts", False) if c.n_shared else [])


def tensors(c: SimpleNamespace, moe: str = "mlp", experts: dict = GATED) -> list[Entry]:
    out = [
        plain("params/embed", "model.embed_tokens.weight"),
        *norm("norm_out", "model.norm", False),
    ]
    for i, p, mixer, mlp in layers(c):
        t = f"model.layers.{i}"
        out += norm(f"{p}/norm_mixer", f"{t}.input_layernorm", False) + norm(
            f"{p}/norm_mlp", f"{t}.post_attention_layernorm", False
        )
        out += {"attention": _attention, "latent": _latent}[mixer](
            c, f"{p}/mixer", f"{t}.self_attn"
        )
        out += (
            _dense(f"{p}/mlp", f"{t}.mlp", c.mlp_bias)
            if mlp == "dense"
            else _moe(c, f"{p}/mlp", f"{t}.{moe}", experts)
        )
    return out


def tensors_mixtral(c: SimpleNamespace) -> list[Entry]:
    return tensors(c, "block_sparse_moe", {"gate": "w1", "in": "w3", "out": "w2"})
