"""Mixers against other people's code, with the same weights: torch.nn, and the torch paths of
transformers (extra `parity`).
"""

import jax
import numpy as np
import pytest

from model.config import Execution
from tests.model.test_mixers import prepared

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def t(a):
    """A torch parameter of ours."""
    return torch.nn.Parameter(torch.tensor(np.array(a, np.float32)))


def rows(a):
    """A matrix of torch: outputs by inputs, ours by whatever axes it has."""
    a = np.asarray(a)
    return a.reshape(a.shape[0], -1).T


def conv(a):
    """torch's depthwise kernel (channels, 1, width)."""
    a = np.asarray(a)
    return a.reshape(a.shape[0], -1).T[:, None]


def assign(module, values: dict):
    named = dict(module.named_parameters())
    assert set(named) == set(values), set(named) ^ set(values)
    with torch.no_grad():
        for name, value in values.items():
            named[name].copy_(t(value).reshape(named[name].shape))
    return module.eval()


def config(kind, **fields):
    return getattr(transformers, kind)(**fields)


def cell(kind):
    def made(part, m, w):
        u, gates = part.units(m), part.gates
        bias = np.zeros((gates, u))
        if kind == "GRU":
            bias[2] = w["new_bias"]
        module = assign(
            getattr(torch.nn, kind)(m.d_model, u, batch_first=True),
            {
                "weight_ih_l0": rows(w["in"]["kernel"]),
                "weight_hh_l0": rows(w["recurrent"]),
                "bias_ih_l0": w["bias"],
                "bias_hh_l0": bias,
            },
        )
        out = t(w["out"]["kernel"])
        return lambda x: module(x)[0] @ out

    return made


def mamba(part, m, w):
    from transformers.models.mamba.modeling_mamba import MambaMixer

    made = config("MambaConfig", hidden_size=m.d_model, time_step_rank=part.thin(m))
    thin = [rows(w[n]["kernel"]) for n in ("steps_down", "b", "c")]
    return assign(
        MambaMixer(made, 0),
        {
            "in_proj.weight": np.concatenate([rows(w[n]["kernel"]) for n in "xz"]),
            "conv1d.weight": conv(w["conv"]["kernel"]),
            "conv1d.bias": w["conv"]["bias"],
            "x_proj.weight": np.concatenate(thin),
            "dt_proj.weight": rows(w["steps"]["kernel"]),
            "dt_proj.bias": w["steps_bias"],
            "A_log": w["rates"],
            "D": w["skip"],
            "out_proj.weight": rows(w["out"]["kernel"]),
        },
    )


def mamba2(part, m, w):
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    fields = dict(num_heads=part.heads(m), head_dim=part.width(m), state_size=part.d_state)
    made = config("Mamba2Config", hidden_size=m.d_model, n_groups=part.n_groups, chunk_size=4,
                  **fields)  # fmt: skip
    out = np.asarray(w["out"]["kernel"]).reshape(-1, m.d_model)
    return assign(
        Mamba2Mixer(made, 0),
        {
            "in_proj.weight": np.concatenate(
                [rows(w[n]["kernel"]) for n in ("z", "x", "b", "c", "steps")]
            ),
            "conv1d.weight": np.concatenate([conv(w[f"conv_{n}"]["kernel"]) for n in "xbc"]),
            "conv1d.bias": np.concatenate([np.ravel(w[f"conv_{n}"]["bias"]) for n in "xbc"]),
            "A_log": w["rates"],
            "D": w["skip"],
            "dt_bias": w["steps_bias"],
            "norm.weight": w["norm_gated"]["scale"],
            "out_proj.weight": out.T,
        },
    )


def rwkv4(part, m, w):
    from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention

    shares = dict(zip(("receptance", "key", "value"), w["shift"]))
    named = {"receptance": "r", "key": "k", "value": "v", "output": "out"}
    module = assign(
        RwkvSelfAttention(config("RwkvConfig", hidden_size=m.d_model, num_hidden_layers=1)),
        {
            "time_decay": w["rates"],
            "time_first": w["bonus"],
            **{f"time_mix_{name}": share for name, share in shares.items()},
            **{f"{name}.weight": rows(w[ours]["kernel"]) for name, ours in named.items()},
        },
    )
    return lambda x: module(x)[0]


def rg_lru(part, m, w):
    from transformers.models.recurrent_gemma import modeling_recurrent_gemma as theirs

    fields = dict(lru_width=part.channels(m), num_attention_heads=part.n_heads)
    made = config("RecurrentGemmaConfig", hidden_size=m.d_model,
                  hidden_activation="gelu_pytorch_tanh", **fields)  # fmt: skip
    linear = {"linear_x": "x", "linear_y": "y", "linear_out": "out"}
    gates = {"input": "input", "recurrent": "forget"}
    module = assign(
        theirs.RecurrentGemmaRecurrentBlock(made, 0),
        {
            **{f"{a}.weight": rows(w[b]["kernel"]) for a, b in linear.items()},
            **{f"{a}.bias": w[b]["bias"] for a, b in linear.items()},
            "conv_1d.weight": conv(w["conv"]["kernel"]),
            "conv_1d.bias": w["conv"]["bias"],
            "rg_lru.recurrent_param": w["rates"],
            **{f"rg_lru.{a}_gate_weight": w[b]["kernel"] for a, b in gates.items()},
            **{f"rg_lru.{a}_gate_bias": w[b]["bias"] for a, b in gates.items()},
        },
    )
    return lambda x: module(x, torch.arange(x.shape[1])[None], None, use_cache=False)[0]


def gated_delta(part, m, w):
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    (k, v), each = part.widths(m), part.heads() // part.n_heads
    made = config(
        "Qwen3NextConfig", hidden_size=m.d_model, num_hidden_layers=1, rms_norm_eps=1e-5,
        linear_num_key_heads=part.n_heads, linear_num_value_heads=part.heads(),
        linear_key_head_dim=k, linear_value_head_dim=v, linear_conv_kernel_dim=part.conv,
        layer_types=["linear_attention"],
    )  # fmt: skip

    def by_key_head(names):
        """Of one head of keys after the other, its rows of every matrix."""
        split = [np.split(np.asarray(w[n]["kernel"]), part.n_heads, 1) for n in names]
        return np.concatenate([rows(a[h]) for h in range(part.n_heads) for a in split])

    assert each * part.n_heads == part.heads()
    out = np.asarray(w["out"]["kernel"]).reshape(-1, m.d_model)
    return assign(
        Qwen3NextGatedDeltaNet(made, 0),
        {
            "in_proj_qkvz.weight": by_key_head(("q", "k", "v", "gate")),
            "in_proj_ba.weight": by_key_head(("beta", "steps")),
            "conv1d.weight": np.concatenate([conv(w[f"conv_{n}"]["kernel"]) for n in "qkv"]),
            "dt_bias": w["steps_bias"],
            "A_log": w["rates"],
            "norm.weight": w["norm_head"]["scale"],
            "out_proj.weight": out.T,
        },
    )


THEIRS = {
    "lstm": cell("LSTM"),
    "gru": cell("GRU"),
    "rnn": cell("RNN"),
    "mamba": mamba,
    "mamba2(n_heads=4,n_groups=2,d_state=3)": mamba2,
    "rwkv4": rwkv4,
    "rg_lru(n_heads=2)": rg_lru,
    "gated_delta(n_heads=2,n_value_heads=4,d_value=3)": gated_delta,
}


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("written", THEIRS)
def test_equals_other_code(written):
    part, m, w, x_BTD = prepared(written)
    w = jax.tree.map(lambda a: a.astype(np.float32), w)
    ours = part.module(m, Execution(chunk=12), "mixer").apply({"params": w}, x_BTD)
    with torch.no_grad():
        theirs = THEIRS[written](part, m, w)(torch.tensor(np.array(x_BTD, np.float32)))
    size = np.abs(theirs.numpy()).max()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-5 * size)
