"""The registered parts, by the names that text and records have for them. A new part is one line
here.
"""

from model.mixers.attention import Attention
from model.mixers.latent import Latent
from model.mlps.dense import Dense
from model.mlps.moe import MoE
from model.norms import LayerNorm, RMSNorm
from model.positions import Alibi, Learned, NoPositions, Rope, Sinusoidal

MIXERS = {
    "attention": Attention,
    "latent": Latent,
}
MLPS = {
    "dense": Dense,
    "moe": MoE,
}
POSITIONS = {
    "none": NoPositions,
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "rope": Rope,
    "alibi": Alibi,
}
NORMS = {
    "rmsnorm": RMSNorm,
    "layernorm": LayerNorm,
}
