"""The coordinate check: no slope under the parametrisations that transfer, slopes under those that
do not, where theory has them; and its verb.
"""

import functools
import json

import numpy as np
import pytest

from experiments import cli
from experiments.coordinates import measure, show
from model import parts
from model.optimizers import OPTIMIZERS

WIDTHS, DEPTHS, SEEDS = (32, 64, 128, 256), (2, 4, 16), (0, 1)
ABOUT = {"dial": "width", "sizes": WIDTHS, "seeds": 2, "updates": 12, "lr": 0.01}
MOVES = 0.3


@functools.cache
def batches(seed: int, updates=12, batch=16, seq_len=32, vocabulary=64):
    """Tokens with something to learn: each follows from the one before, or is drawn by Zipf."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, vocabulary + 1)
    drawn = rng.choice(vocabulary, (updates, batch, seq_len + 1), p=share / share.sum())
    for t in range(1, seq_len + 1):
        follows = rng.random(drawn.shape[:2]) < 0.7
        drawn[..., t] = np.where(follows, (drawn[..., t - 1] * 7 + 3) % vocabulary, drawn[..., t])
    return drawn.astype(np.int32)


def base(pattern="attention/dense", **more):
    return parts.model(pattern, **{"vocab_size": 64, "seq_len": 32, "n_layers": 2, **more})


def checked(m, text, dial="width", at=WIDTHS, name="adamw", heads="more", lr=0.01):
    o = OPTIMIZERS[name](lr=lr * OPTIMIZERS[name].AGAINST_ADAMW, embed_lr=0.01)
    return measure.check(m, o, text, dial, at, batches, SEEDS, heads)


def said(found):
    return show.text(ABOUT, [found])


def test_mup_keeps_sizes_over_widths_and_the_standard_one_does_not():
    found = checked(base(), "mup(base_width=32)")
    assert not found.moved(), said(found)
    control = checked(base(), "standard", at=(32, 128))
    for quantity in ("scores", "mixer", "mlp", "stream", "logits"):
        assert control.slope(quantity, "update") > MOVES, said(control)


NARROW = parts.set_field(base(d_model=32), "attention.n_heads", "2")  # heads of 16


@pytest.mark.slow
def test_completep_keeps_sizes_over_depths_and_mup_does_not():
    """Scores and what mixers give, on which depths act through the stream alone, keep to 0.15."""
    found = checked(NARROW, "completep(base_width=32)", "depth", DEPTHS, lr=0.005)
    assert {q for q, _, slope in found.moved()} <= {"scores", "mixer"}, said(found)
    assert all(abs(slope) < 0.15 for _, _, slope in found.moved()), said(found)
    control = checked(NARROW, "mup(base_width=32)", "depth", (2, 8), lr=0.005)
    assert control.slope("stream", "update") > MOVES, said(control)


MOE = "attention/moe(n_experts=4,top_k=2,n_shared=1,shared_gate=true)"


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "m", [base(), base(MOE), base(tied=True, positions="learned", norm="layernorm")]
)
def test_updates_keep_their_sizes_with_every_optimizer(m, name):
    """Within 0.15: widths are finite, and so are updates."""
    found = checked(m, "mup(base_width=32)", name=name)
    slopes = [r.update_slope for r in found.rows]
    assert max(map(abs, slopes)) < 0.15, said(found)


@pytest.mark.slow
def test_what_starts_smaller_by_theory_is_seen_to():
    """Routers as outputs, and scores of wider heads, which mup divides by their width."""
    found = checked(base(MOE), "mup(base_width=32)", at=(32, 128), heads="wider")
    for quantity in ("router", "scores"):
        assert -0.7 < found.slope(quantity, "start") < -0.3, said(found)
    control = checked(base(MOE), "standard", at=(32, 128), heads="wider")
    assert abs(control.slope("scores", "start")) < 0.1, said(control)


def call(capsys, *argv):
    status = cli.main(["coordinates", "--config=tiny_dense", *argv])
    return status, *capsys.readouterr()


SMALL = ["--sizes=16,32", "--updates=2", "--seeds=1", "--batch=2", "--set=model.seq_len=16"]


def test_the_verb_writes_a_figure_and_numbers(tmp_path, capsys):
    out = tmp_path / "c.png"
    status, text, err = call(capsys, *SMALL, f"--out={out}")
    assert status == 0, err
    assert "standard" in text and "mup" in text and "stream" in text
    assert out.read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / "c.json").read_text())
    assert numbers["sizes"] == [16, 32] and set(numbers["parametrisations"]) == {"standard", "mup"}
    row = numbers["parametrisations"]["mup"]["stream"]
    want = np.log(row["update"][1] / row["update"][0]) / np.log(2)
    assert row["update_slope"] == pytest.approx(want)
    status, text, _ = call(capsys, *SMALL, f"--out={tmp_path / 'c.svg'}", "--format=json")
    assert json.loads(text) == json.loads((tmp_path / "c.json").read_text()) == numbers


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--sizes=32"], "two or more different"),
        (["--sizes=32,a"], "two or more different"),
        (["--sizes=33,64"], "divide"),
        (["--out=c.pdf"], "ends with .svg or .png"),
        (["--out=/nowhere/c.svg"], "cannot be written"),
        (["--parametrisation=mop"], "did you mean 'mup'"),
        (["--parametrisation=mup(width=3)"], "base_width"),
        (["--set=model.pattern=mamba/dense"], "mixer mamba is not covered"),
        (["--updates=0"], "at least 1"),
    ],
)
def test_bad_input_is_one_line(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capsys, *flags)
    assert status == 2 and words in err and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())
