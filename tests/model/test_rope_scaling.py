"""Rope for longer sequences: frequencies as transformers computes them, and what follows from
taking the length of the model.
"""

import numpy as np
import pytest

from model import parts
from model.config import Execution, check
from model.registry import SCALINGS
from tests.model.test_model import forward, variables

WIDTH, THETA = 16, 10_000.0
EIGHT = "[1.0,1.1,1.2,1.3,1.5,2.0,3.0,4.0]"
# ours, theirs; lengths of the model
CASES = {
    "linear": ("linear(factor=4.0)", {"factor": 4.0}),
    "dynamic": ("dynamic(factor=2.0,original=64)", {"factor": 2.0}),
    "yarn": (
        "yarn(factor=8.0,original=64,beta_fast=16.0)",
        {"factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 16},
    ),
    "yarn-exact": (
        "yarn(factor=32.0,original=4096,truncate=false,magnitude=1.5)",
        {
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
            "attention_factor": 1.5,
        },
    ),
    "llama3": (
        "llama3(factor=4.0,original=256)",
        {
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
    "longrope": (
        f"longrope(short={EIGHT},long={EIGHT.replace('3', '7')},original=64)",
        {
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 4.0],
            "long_factor": [1.0, 1.1, 1.2, 1.7, 1.5, 2.0, 7.0, 4.0],
            "original_max_position_embeddings": 64,
        },
    ),
}


def test_every_scaling_has_a_witness():
    assert {type(parts.part("scaling", ours)) for ours, _ in CASES.values()} == {*SCALINGS.values()}


@pytest.mark.parametrize("length", [48, 200])
@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name, length):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ours, theirs = CASES[name]
    kind = name.partition("-")[0]
    most = 64 if kind == "dynamic" else length
    config = transformers.LlamaConfig(
        hidden_size=2 * WIDTH,
        num_attention_heads=2,
        max_position_embeddings=most,
        rope_parameters={"rope_type": kind, "rope_theta": THETA, **theirs},
    )
    want, magnitude = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    got = parts.part("scaling", ours).frequencies(THETA, WIDTH, length)
    np.testing.assert_allclose(got[0], want.numpy(), rtol=2e-6)
    assert got[1] == pytest.approx(magnitude, rel=1e-6)


@pytest.mark.parametrize("scaling", ["dynamic(factor=4.0,original=4)", "yarn(original=4,factor=3)"])
def test_a_prefix_is_turned_like_the_whole(scaling):
    """And unlike without a scaling."""
    c = parts.model("attention(n_heads=2)/dense", vocab_size=16, seq_len=12, d_model=16, n_layers=1)
    scaled = parts.set_field(c, "rope.scaling", scaling)
    held, t = variables(c), np.arange(12, dtype=np.int32)[None]
    whole, part, other = (
        forward(m, Execution(), held, t[:, :n]) for m, n in ((scaled, 12), (scaled, 5), (c, 12))
    )
    np.testing.assert_allclose(part, whole[:, :5], atol=1e-5)
    assert np.abs(other - whole).max() > 1e-3


@pytest.mark.parametrize(
    "scaling,words",
    [
        ("linear(factor=0)", "factor=0.0 must be above 0"),
        ("yarn(magnitude=-1)", "magnitude=-1.0 must be above 0"),
        ("yarn(beta_slow=40)", "beta_fast=32.0 must be above beta_slow=40.0"),
        ("llama3(low=4.0)", "low=4.0 must be below high=4.0"),
        ("longrope(short=[1.0],long=[1.0])", "short has 1 factors, and 4 pairs are rotated"),
        ("longrope(original=1)", "at least 2"),
    ],
)
def test_what_cannot_be_is_refused(scaling, words):
    c = parts.model("attention(n_heads=2)/dense", d_model=16)
    with pytest.raises(ValueError, match=words):
        check(parts.set_field(c, "rope.scaling", scaling))
    check(parts.set_field(c, "rope.scaling", "yarn(factor=4.0)"))


def test_a_list_is_a_list_of_numbers():
    c = parts.model(positions="rope(scaling=longrope)")
    m = parts.set_field(c, "longrope.short", "[1, 2.5]")
    assert m.positions.scaling.short == (1.0, 2.5)
    for wrong in ("3.0", "word", "[1.0,word]", "[1.0"):
        with pytest.raises(ValueError, match="longrope.short"):
            parts.set_field(c, "longrope.short", wrong)
