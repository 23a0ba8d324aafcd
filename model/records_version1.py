"""The model of a record of version 1, which had one flat list of fields for all layers."""

from model.config import Layer, Model
from model.parametrisation import Standard
from model.registry import MIXERS, MLPS, NORMS, POSITIONS

# field of version 1 -> (parts that have it, the name there)
FIELDS = {
    **{
        name: (("attention", "latent"), name)
        for name in ("n_heads", "d_head", "window", "out_bias")
    },
    **{name: (("attention",), name) for name in ("n_kv_heads", "qk_norm", "qkv_bias")},
    **{name: (("latent",), name) for name in ("kv_rank", "q_rank", "d_rope", "d_value")},
    "attention_cap": (("attention", "latent"), "cap"),
    "d_ff": (("dense", "moe"), "d_ff"),
    "activation": (("dense", "moe"), "activation"),
    "mlp_bias": (("dense", "moe"), "bias"),
    **{
        name: (("moe",), name)
        for name in (
            *("n_experts", "top_k", "d_expert", "n_shared", "router", "renormalise", "gate_scale"),
            *("expert_groups", "top_groups", "selection_bias", "bias_rate", "capacity_factor"),
            *("routing_group", "balance_weight", "balance_scope", "z_weight"),
        )
    },
    "position_offset": (("sinusoidal", "learned"), "offset"),
    **{f"rope_{name}": (("rope",), name) for name in ("theta", "fraction", "interleaved")},
    "norm_eps": (("rmsnorm", "layernorm"), "eps"),
}
# these kept their names
SHARED = (
    *("vocab_size", "seq_len", "d_model", "n_layers"),
    *("tied", "logit_cap", "embed_norm", "embed_scale"),
)
OTHERS = ("pattern", "first_layers", "positions", "norm", "post_norm")


def model(**fields) -> Model:
    """A Model of the fields of version 1; those left out have the defaults of then. Raises
    ValueError on a field that version 1 did not have.
    """
    unknown = set(fields) - {*FIELDS, *SHARED, *OTHERS}
    if unknown:
        raise ValueError(f"Model has no field {min(unknown)!r}")
    shared = {k: v for k, v in fields.items() if k in SHARED}
    if not fields.get("norm_eps"):  # 0 was the norm's usual one
        fields.pop("norm_eps", None)
    if fields.get("d_ff", 256) == 4 * fields.get("d_model", 64):
        fields["d_ff"] = 0
    else:
        fields.setdefault("d_ff", 256)

    def made(table, name):
        cls = table[name]
        own = {at: fields[f] for f, (kinds, at) in FIELDS.items() if name in kinds and f in fields}
        return cls(**own)

    def layer(entry: str) -> Layer:
        mixer, _, mlp = entry.partition("/")
        norm = "post" if fields.get("post_norm") else "pre"
        return Layer(made(MIXERS, mixer), made(MLPS, mlp), norm=norm)

    return Model(
        positions=made(POSITIONS, fields.get("positions", "rope")),
        norm=made(NORMS, fields.get("norm", "rmsnorm")),
        parametrisation=Standard(),
        pattern=tuple(map(layer, fields.get("pattern", ("attention/dense",)))),
        first=tuple(map(layer, fields.get("first_layers", ()))),
        **shared,
    )
