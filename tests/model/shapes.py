"""Models of tests in few words: one flat list of fields for all layers, and what differs by layer
as text.
"""

from types import SimpleNamespace

from model import parts, records_version1
from model.mixers.softmax import head_width


def view(m) -> SimpleNamespace:
    """The same list, read off a model whose layers are alike: defaults of the widths made
    explicit.
    """
    held = [m.norm, m.positions, *(p for layer in m.layers for p in (layer.mixer, layer.mlp))]
    out = {name: getattr(m, name) for name in records_version1.SHARED}
    for name, (kinds, at) in records_version1.FIELDS.items():
        values = {getattr(p, at) for p in held if parts.NAMES[type(p)] in kinds}
        assert len(values) < 2, name
        default = getattr(next(cls for cls, n in parts.NAMES.items() if n == kinds[0]), at)
        out[name] = values.pop() if values else default
    out["positions"], out["norm"] = parts.NAMES[type(m.positions)], parts.NAMES[type(m.norm)]
    out["post_norm"] = m.layers[0].norm == "post"
    out["n_kv_heads"] = out["n_kv_heads"] or out["n_heads"]
    out["d_head"] = head_width(m.layers[0].mixer, m)
    out["d_value"] = out["d_value"] or out["d_head"]
    out["d_ff"] = out["d_ff"] or 4 * m.d_model
    out["d_expert"] = m.routed[0].width(m) if m.routed else 0
    return SimpleNamespace(**out)


def maker(**base):
    """A function that makes a Model of `base` and what is changed. `layers`: the pattern as text,
    in place of the flat list, and after semicolons what `--set model.` would set.
    """

    def make(layers: str = "", **change):
        m = records_version1.model(**{**base, **change})
        pattern, *settings = (s.strip() for s in layers.split(";"))
        for s in [f"pattern={pattern}"] * bool(layers) + settings:
            m = parts.set_field(m, *s.split("=", 1))
        return m

    return make


def replace(m, **change):
    """`m` with fields of the flat list changed, in whatever parts it has them."""
    for name, value in change.items():
        kinds, own = records_version1.FIELDS.get(name, ((), name))
        here = [k for k in kinds if parts.places(m, f"{k}.{own}")]
        for key in [f"{k}.{own}" for k in here] if kinds else [name]:
            m = parts.set_field(m, key, str(value))
    return m


# what the flat list cannot say
BY_LAYER = {
    "windows": "attention(n_heads=2,window=4)/dense, attention(n_heads=2)/dense",
    "two widths": "attention(n_heads=2)/moe(n_experts=4,d_expert=12), attention(n_heads=2)/moe("
    "n_experts=8,top_k=1,d_expert=20)",
    "some without rope": "attention(n_heads=2,positions=none)/dense, attention(n_heads=2,"
    "positions=rope(theta=100.0))/dense",
    "sandwich": "attention(n_heads=2)/dense/layer(norm=sandwich)",
    "output norm": "attention(n_heads=2,qk_norm=full)/dense/layer(norm=output)",
    "parallel": "attention(n_heads=2)/moe(n_experts=4)/layer(residual=parallel)",
    "gated": "attention(n_heads=2,n_kv_heads=1,gate=true,qkv_bias=true)/dense",
    "shared norm": "attention(n_heads=2)/dense/layer(residual=shared)",
    # what released models have, each with its own
    "sinks": "attention(n_heads=4,n_kv_heads=2,window=4,sinks=true)/moe(n_experts=4,bias=true,"
    "router_bias=true,activation=swiglu,alpha=1.702,limit=0.5,shift=1.0), attention(n_heads=2,"
    "sinks=true,cap=5.0,scale=0.5,clip=1.5)/dense(activation=geglu,limit=2.0)",
    "gated shared": "attention(n_heads=2)/moe(n_experts=4,n_shared=1,shared_gate=true,"
    "expert_groups=2,group_score=best)/layer(residual_scale=0.5); rope.scaling=yarn(factor=4.0,"
    "original=4); embed_multiplier=3.0; logit_scale=0.5",
    "latent scale": "latent(n_heads=2,kv_rank=8,d_rope=4,scale=0.5)/dense(alpha=2.0); "
    "rmsnorm.centred=true; logit_cap=5.0; logit_scale=2.0",
    "no bias": "attention(n_heads=2,qk_norm=head)/dense/layer(norm=sandwich,residual_scale=2.0); "
    "norm=layernorm(bias=false); rope.scaling=llama3(original=16)",
}
