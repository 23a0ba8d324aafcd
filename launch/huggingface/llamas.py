"""Families with RMSNorm, rotary positions and a gated MLP, dense or of experts: llama, mistral,
qwen3, mixtral, olmoe, qwen3_moe, deepseek_v3. One reader, one writer and one table of tensors; a
family is what it adds to them.
"""

from types import SimpleNamespace

from launch.config import ConfigError
from launch.huggingface.config_reading import Config, activation, named, rope
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
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.latent import Latent
from model.mlps.dense import Dense
from model.mlps.moe import MoE
from model.norms import RMSNorm


def _shared(cfg: Config, interleaved: bool = False) -> dict:
    """Fields that all layers share."""
    return {
        "vocab_size": cfg["vocab_size"],
        "seq_len": cfg["max_position_embeddings"],
        "d_model": cfg["hidden_size"],
        "n_layers": cfg["num_hidden_layers"],
        "tied": cfg["tie_word_embeddings"],
        "norm": RMSNorm(cfg["rms_norm_eps"]),
        "positions": rope(cfg, interleaved),
    }


def _attention(cfg: Config, **more) -> Attention:
    heads, biased = cfg["num_attention_heads"], bool(cfg.get("attention_bias"))
    return Attention(
        heads,
        cfg.get("num_key_value_heads") or heads,
        cfg.get("head_dim") or cfg["hidden_size"] // heads,
        qkv_bias=biased,
        out_bias=biased,
        **more,
    )


def _dense(cfg: Config, **more) -> Dense:
    return Dense(cfg["intermediate_size"], activation(cfg["hidden_act"], gated=True), **more)


def _moe(cfg: Config, n: str, width: str, **more) -> MoE:
    """n, width: what the family calls the number of experts, and the width of one."""
    return MoE(
        cfg[n],
        cfg["num_experts_per_tok"],
        cfg["intermediate_size"],
        cfg[width],
        activation=activation(cfg["hidden_act"], gated=True),
        **more,
    )


def read_llama(cfg: Config) -> Model:
    layer = Layer(_attention(cfg), _dense(cfg, bias=cfg["mlp_bias"]))
    return parts.model((layer,), **_shared(cfg))


def read_mistral(cfg: Config) -> Model:
    layer = Layer(_attention(cfg, window=cfg["sliding_window"] or 0), _dense(cfg))
    return parts.model((layer,), **_shared(cfg))


def _qwen_window(cfg: Config) -> int:
    """The window of all layers; a config that has one in some layers only is refused."""
    kinds = set(cfg.get("layer_types") or [])
    if not cfg.get("use_sliding_window") and "sliding_attention" not in kinds:
        return 0
    if kinds != {"sliding_attention"}:
        cfg.refuse("use_sliding_window in some layers only is not supported", harmless=True)
        return 0
    return cfg["sliding_window"] or 0


def _qwen_attention(cfg: Config) -> Attention:
    return _attention(cfg, qk_norm="head", window=_qwen_window(cfg))


def read_qwen3(cfg: Config) -> Model:
    return parts.model((Layer(_qwen_attention(cfg), _dense(cfg)),), **_shared(cfg))


def read_mixtral(cfg: Config) -> Model:
    moe = _moe(cfg, "num_local_experts", "intermediate_size", balance_scope="model")
    layer = Layer(_attention(cfg, window=cfg["sliding_window"] or 0), moe)
    return parts.model((layer,), **_shared(cfg))


def read_olmoe(cfg: Config) -> Model:
    more = {"renormalise": cfg["norm_topk_prob"], "balance_scope": "model"}
    moe = _moe(cfg, "num_experts", "intermediate_size", **more)
    return parts.model((Layer(_attention(cfg, qk_norm="full"), moe),), **_shared(cfg))


def read_qwen3_moe(cfg: Config) -> Model:
    n = "num_local_experts" if "num_local_experts" in cfg else "num_experts"
    more = {"renormalise": cfg["norm_topk_prob"], "balance_scope": "model"}
    moe, attention = _moe(cfg, n, "moe_intermediate_size", **more), _qwen_attention(cfg)
    dense, every = set(cfg["mlp_only_layers"] or []), cfg["decoder_sparse_step"]
    sparse = [i not in dense and (i + 1) % every == 0 for i in range(cfg["num_hidden_layers"])]
    layers = [Layer(attention, moe if s else _dense(cfg)) for s in sparse]
    return parts.model(shortest(layers), **_shared(cfg))


def shortest(layers: list[Layer]) -> tuple[Layer, ...]:
    """The shortest pattern that tiles to `layers`."""
    for n in range(1, len(layers) + 1):
        if len(layers) % n == 0 and layers == layers[:n] * (len(layers) // n):
            return tuple(layers[:n])
    return tuple(layers)


def read_deepseek_v3(cfg: Config) -> Model:
    if cfg.get("attention_bias"):
        raise ConfigError("config.json: attention_bias=True is not supported for deepseek_v3")
    latent = Latent(
        cfg["num_attention_heads"],
        kv_rank=cfg["kv_lora_rank"],
        q_rank=cfg["q_lora_rank"] or 0,
        d_head=cfg["qk_nope_head_dim"],
        d_rope=cfg["qk_rope_head_dim"],
        d_value=cfg["v_head_dim"],
    )
    moe = _moe(
        cfg,
        "n_routed_experts",
        "moe_intermediate_size",
        n_shared=cfg["n_shared_experts"],
        router="sigmoid",
        renormalise=cfg["norm_topk_prob"],
        gate_scale=float(cfg["routed_scaling_factor"]),
        expert_groups=cfg["n_group"] or 1,
        top_groups=cfg["topk_group"] or 1,
        selection_bias=True,
    )
    dense = Layer(latent, _dense(cfg))
    first = min(cfg["first_k_dense_replace"] or 0, cfg["num_hidden_layers"])
    shared = _shared(cfg, interleaved=cfg["rope_interleave"])
    if first == cfg["num_hidden_layers"]:
        return parts.model((dense,), **shared)
    return parts.model((Layer(latent, moe),), first=(dense,) * first, **shared)


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


def _attention_tensors(c: SimpleNamespace, p: str, t: str) -> list[Entry]:
    out = []
    for x in "qkv":
        out += projection(f"{p}/{x}", f"{t}.{x}_proj", 1, c.qkv_bias)
        if c.qk_norm != "none" and x != "v":
            out += norm(f"{p}/norm_{x}", f"{t}.{x}_norm", False)
    return out + projection(f"{p}/out", f"{t}.o_proj", 2, c.out_bias)


def _latent_tensors(c: SimpleNamespace, p: str, t: str) -> list[Entry]:
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


def _dense_tensors(p: str, t: str, bias: bool) -> list[Entry]:
    return [
        e
        for ours, theirs in GATED.items()
        for e in projection(f"{p}/{ours}", f"{t}.{theirs}", 1, bias)
    ]


def _moe_tensors(c: SimpleNamespace, p: str, t: str, names: dict) -> list[Entry]:
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
    return out + (_dense_tensors(f"{p}/shared", f"{t}.shared_experts", False) if c.n_shared else [])


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
        out += {"attention": _attention_tensors, "latent": _latent_tensors}[mixer](
            c, f"{p}/mixer", f"{t}.self_attn"
        )
        out += (
            _dense_tensors(f"{p}/mlp", f"{t}.mlp", c.mlp_bias)
            if mlp == "dense"
            else _moe_tensors(c, f"{p}/mlp", f"{t}.{moe}", experts)
        )
    return out


def tensors_mixtral(c: SimpleNamespace) -> list[Entry]:
    return tensors(c, "block_sparse_moe", {"gate": "w1", "in": "w3", "out": "w2"})
