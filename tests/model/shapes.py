"""Models of tests in few words: one flat list of fields for all layers, and what differs by layer
as text.
"""

from launch.huggingface import config_writing
from model import parts, records_version1

view = config_writing.view  # the same list, read off a model


def maker(**base):
    """A function that makes a Model of `base` and what is changed. `layers`: the pattern as text,
    in place of the flat list.
    """

    def make(layers: str = "", **change):
        m = records_version1.model(**{**base, **change})
        return parts.set_field(m, "pattern", layers) if layers else m

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
    "shared norm": "attention(n_heads=2)/dense/layer(residual=shared)",
}
