"""The registered parts, by the names that text and records have for them. A new part is one line
here.
"""

from model.mixers.attention import Attention
from model.mixers.gated_conv import GatedConv
from model.mixers.gated_delta import GatedDelta
from model.mixers.gla import GLA
from model.mixers.gru import GRU
from model.mixers.hyena import Hyena
from model.mixers.latent import Latent
from model.mixers.linear_attention import LinearAttention
from model.mixers.lstm import LSTM
from model.mixers.mamba import Mamba
from model.mixers.mamba2 import Mamba2
from model.mixers.reformer import Reformer
from model.mixers.retnet import RetNet
from model.mixers.rg_lru import RGLRU
from model.mixers.rnn import RNN
from model.mixers.rwkv4 import RWKV4
from model.mixers.rwkv7 import RWKV7
from model.mixers.s4d import S4D
from model.mixers.s5 import S5
from model.mixers.sparse import Sparse
from model.mlps.channel_mix import ChannelMix
from model.mlps.dense import Dense
from model.mlps.moe import MoE
from model.mlps.no_mlp import NoMLP
from model.norms import LayerNorm, RMSNorm
from model.parametrisation import CompleteP, Mup, Standard
from model.positions import Alibi, Learned, NoPositions, Rope, Sinusoidal
from model.rope_scaling import Dynamic, Linear, Llama3, LongRope, Yarn

MIXERS = {
    "attention": Attention,
    "latent": Latent,
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
    "linear_attention": LinearAttention,
    "retnet": RetNet,
    "gla": GLA,
    "gated_delta": GatedDelta,
    "s4d": S4D,
    "s5": S5,
    "rg_lru": RGLRU,
    "mamba": Mamba,
    "mamba2": Mamba2,
    "rwkv4": RWKV4,
    "rwkv7": RWKV7,
    "gated_conv": GatedConv,
    "hyena": Hyena,
    "sparse": Sparse,
    "reformer": Reformer,
}
MLPS = {
    "dense": Dense,
    "moe": MoE,
    "channel_mix": ChannelMix,
    "no_mlp": NoMLP,
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
PARAMETRISATIONS = {
    "standard": Standard,
    "mup": Mup,
    "completep": CompleteP,
}
SCALINGS = {
    "linear": Linear,
    "dynamic": Dynamic,
    "yarn": Yarn,
    "llama3": Llama3,
    "longrope": LongRope,
}
