"""Finished models on one text: stages against the whole model, streamed weights against held ones,
windows of text, errors. Choices: test_evaluation_choices.py.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import tokenizers
from data.config import Data, DataError
from launch.config import ConfigError
from launch.evaluation import memory, score, text, weights
from launch.evaluation.losses import Losses, ratio
from launch.evaluation.score import Scorer, Sequence
from launch.evaluation.text import Reader
from launch.evaluation.weights import Weights
from launch.huggingface import folder
from launch.runs.sums import Sums
from model import parts, step
from model.config import Execution
from model.lm import LM
from tests.data import made
from tests.model.test_model import variables

GATED = "dense(d_ff=24,activation=swiglu)"
MODELS = {
    "llama": ("attention(n_heads=2,n_kv_heads=1)/" + GATED, {}),
    "tied": ("attention(n_heads=2)/dense", {"tied": True, "positions": "learned"}),
    "moe": ("attention(n_heads=2)/moe(n_experts=4,capacity_factor=0.5,selection_bias=true)", {}),
    "hybrid": ("mamba/dense, attention(n_heads=2,window=5)/dense", {"first": "rwkv4/channel_mix"}),
}


def model(name: str, **more):
    pattern, fields = MODELS[name]
    n = 5 if "first" in fields else 2
    return parts.model(
        pattern, vocab_size=256, seq_len=24, d_model=16, n_layers=n, **fields, **more
    )


def held(m, v, stream=False, dtype="float32"):
    return Weights(m, lambda places: weights.under(v, places), dtype, stream)


def pieces(n: int = 7, longest: int = 24) -> list[Sequence]:
    rng = np.random.default_rng(0)
    widths = [longest, *rng.integers(1, longest, n - 1)]
    return [
        Sequence(rng.integers(0, 256, w + 1).astype(np.int32), int(rng.integers(0, w)))
        for w in widths
    ]


def test_a_batch_is_no_wider_than_the_positions():
    """A table of 20 learned positions has no row for a filler that stands 21st."""
    m = dataclasses.replace(model("tied"), seq_len=20)
    v, asked = variables(m), pieces(3, 20)
    want = step.eval_step(LM(m, Execution()), v, asked[0].tokens[None])[0]
    got = Scorer(held(m, v)).score(asked).nll[0]
    np.testing.assert_allclose(got, np.asarray(want)[0, asked[0].skip :], atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_stages_are_the_whole_model(name):
    """Batches of several widths, filled up on the right, against each sequence alone."""
    m = model(name)
    v = variables(m)
    asked = pieces()
    found = Scorer(held(m, v)).score(asked, best=True)
    m = score.dropless(m)  # as decoding has it, whatever the capacity
    assert not any(p.capacity_factor for p in m.routed)
    whole = jax.jit(lambda v, t: step.eval_step(LM(m, Execution()), v, t)[0])
    logits = jax.jit(lambda v, t: LM(m, Execution()).apply(v, t)[0])
    for s, nll, best in zip(asked[:3], found.nll, found.best):
        want = np.asarray(whole(v, s.tokens[None]))[0, s.skip :]
        assert nll.shape == want.shape == (s.width - s.skip,)
        np.testing.assert_allclose(nll, want, rtol=2e-5, atol=2e-5)
        top = np.asarray(logits(v, s.tokens[None, :-1]))[0].argmax(-1)[s.skip :]
        assert (best == (top == s.tokens[1 + s.skip :])).all()


def test_one_layer_is_held_at_a_time():
    """Whatever waits to be computed: when a layer is read, none is there."""
    wide = MODELS["llama"][0].replace("d_ff=24", "d_ff=2048")
    m = parts.model(wide, vocab_size=8, seq_len=16, d_model=128, n_layers=12)
    v = jax.tree.map(np.asarray, variables(m))
    layer = sum(a.nbytes for a in jax.tree.leaves(v["params"]["group_0"]))
    asked = [Sequence(np.arange(17, dtype=np.int32) % 8)] * 64
    before = sum(a.nbytes for a in jax.live_arrays())
    there, ready = [], []

    def read(places):
        there.append(sum(a.nbytes for a in jax.live_arrays()) - before)
        ready.append(all(a.is_ready() for a in jax.live_arrays()))
        return weights.under(v, places)

    for stream in (True, False):
        there.clear()
        Scorer(Weights(m, read, "float32", stream)).score(asked)
        states = 64 * 16 * 128 * 4
        assert layer > 5 * states
        assert (max(there) < 2 * states) is stream
        assert all(ready) or not stream  # a call that waits holds its layer, and is not counted


def test_sets_are_scored_together():
    """Weights are read once for all of them; a set's scores, and the length that its rope goes by,
    are those of the set alone.
    """
    short, long = "[1.0,1.0,1.0,1.0]", "[2.0,3.0,4.0,5.0]"
    scaling = f"longrope(short={short},long={long},original=16,factor=2)"
    m = parts.set_field(model("llama"), "rope.scaling", scaling)
    v, read = variables(m), []

    def one(places):
        read.append(places)
        return weights.under(v, places)

    sets = [pieces(5, 24), [], pieces(3, 12)]
    found = Scorer(Weights(m, one, "float32", True, by_call=True)).together(sets)
    assert read.count(("group_0/layer_0",)) == 1
    for own, got in zip(sets, found, strict=True):
        alone = Scorer(Weights(m, one, "float32", False, by_call=True)).score(own)
        assert len(got.nll) == len(own)
        for a, b in zip(got.nll, alone.nll):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["tied", "hybrid"])
def test_streamed_weights_score_alike(name, monkeypatch):
    """To the bit, in groups of batches too; and a layer is all that is read at a time."""
    m = model(name)
    v, asked = variables(m), pieces(9)
    want = Scorer(held(m, v)).score(asked).nll
    monkeypatch.setattr(score, "ROWS", 2)
    read = []

    def one(places):
        read.append(places)
        return weights.under(v, places)

    for room, groups in ((2**40, 1), (1, None)):
        monkeypatch.setattr(score, "STATES", room)
        monkeypatch.setattr(memory, "free", lambda: 4)
        read.clear()
        got = Scorer(Weights(m, one, "float32", True)).score(asked).nll
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
        firsts = read.count(("group_0/layer_0",))
        assert firsts == groups if groups else firsts > 2
    assert all(len(p) == 1 for p in read)


def test_a_folder_is_read_layer_by_layer(tmp_path):
    """What is read of a layer is that layer of the whole; and no more of the file."""
    m = model("llama")
    v = variables(m)
    folder.save(str(tmp_path), m, v)
    checkpoint = folder.opened(str(tmp_path))
    whole = Weights(m, checkpoint.read, "float32", False).whole()
    jax.tree.map(np.testing.assert_array_equal, whole["params"], v["params"])
    layer = checkpoint.read(("group_1/layer_0",))["params"]
    assert list(layer) == ["group_1"]
    jax.tree.map(np.testing.assert_array_equal, layer["group_1"], v["params"]["group_1"])
    assert set(checkpoint.read(("embed", "positions"))["params"]) == {"embed"}


def test_rope_that_goes_by_a_length_goes_by_what_is_scored():
    """Of a released model; a run is turned as it was trained. 16 tokens are within the length that
    the short factors are meant for.
    """
    short, long = "[1.0,1.0,1.0,1.0]", "[2.0,3.0,4.0,5.0]"
    m = parts.set_field(
        model("llama"),
        "rope.scaling",
        f"longrope(short={short},long={long},original=16,factor=2)",
    )
    v, asked = variables(m), pieces(3, 16)
    assert weights.at_length(m, 16) != m and weights.at_length(model("llama"), 16).seq_len == 24

    def alone(seq_len):
        lm = LM(dataclasses.replace(m, seq_len=seq_len), Execution())
        return np.asarray(step.eval_step(lm, v, asked[0].tokens[None])[0])[0, asked[0].skip :]

    read = held(m, v)
    np.testing.assert_allclose(Scorer(read).score(asked).nll[0], alone(24), atol=2e-5)
    read = held(m, v)
    read.by_call = True
    np.testing.assert_allclose(Scorer(read).score(asked).nll[0], alone(16), atol=2e-5)
    assert np.abs(alone(16) - alone(24)).max() > 1e-4


def test_weights_stream_where_they_do_not_fit(monkeypatch):
    m = model("llama")
    need = weights.size(m, "float32")
    assert need == 4 * sum(a.size for a in jax.tree.leaves(variables(m)["params"]))
    for free, fits in ((None, True), (need / weights.ROOM + 1, True), (need, False)):
        monkeypatch.setattr(memory, "free", lambda free=free: free)
        assert weights.fits(m, "float32") is fits
    monkeypatch.undo()
    left = memory.free()
    assert left is None or 2**20 < left < 2**50


def test_models_of_equal_shape_share_programs():
    m, asked, programs = model("llama"), pieces(3), {}
    first = Scorer(held(m, variables(m)), programs)
    first.score(asked)
    second = Scorer(held(m, variables(m, seed=1)), programs)
    nll = second.score(asked).nll
    assert first.compile_s > 0 and second.compile_s == 0
    np.testing.assert_array_equal(nll[0], Scorer(held(m, variables(m, seed=1))).score(asked).nll[0])


def test_few_widths_cover_all_lengths():
    assert [score.width(n) for n in (1, 24, 25, 33, 1025)] == [24, 24, 32, 48, 1536]
    assert all(n <= score.width(n) <= 1.51 * n for n in range(24, 5000))


def test_windows_hold_whole_characters_of_one_document():
    window = "\u00e9\u6f22\U0001f98a".encode()
    for a in range(len(window)):
        for b in range(a, len(window) + 1):
            (body,) = text.cut(window[a:b])
            assert body.decode() in "\u00e9\u6f22\U0001f98a"
            assert len(window[a:b]) - len(body) <= 6
    assert text.cut(b"one\0two\0", whole=True) == [b"one", b"two", b""]
    assert text.cut(b"\xff\xfeplain") == [b"\xff\xfeplain"]  # no text, but nothing is cut through


def corpus(tmp_path, lines=400):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i} of the quick brown caf\u00e9\n" for i in range(lines)))
    return Data(source="text", path=str(path), validation_windows=4)


def test_every_model_reads_the_same_bytes(tmp_path):
    d = corpus(tmp_path)
    found = text.read(d, 64, cache=str(tmp_path / "cache"))
    assert found.windows == 4 and {t.window for t in found.texts} == {0, 1, 2, 3}
    assert 4 * 60 <= found.bytes <= 256
    again = text.read(d, 64, cache=str(tmp_path / "cache"))
    assert again == found
    other = text.read(d, 64, "all", str(tmp_path / "cache"))
    assert other.fingerprint != found.fingerprint and other.windows == 4
    for kind, path in (
        ("bytes", ""),
        ("sentencepiece", made.sentencepiece(tmp_path, "bpe_fallback")),
        ("hf", made.hf(tmp_path, "gpt2")),
    ):
        t = tokenizers.load(Data(tokenizer=kind, tokenizer_path=path))
        for one, (ids, sizes) in zip(found.texts, t.counted_batch([t.body for t in found.texts])):
            counted = t.token_bytes[ids] if sizes is None else sizes
            assert len(one.body) - 1 <= counted.sum() <= len(one.body)


def test_a_text_shorter_than_a_window_is_read_whole(tmp_path):
    d = corpus(tmp_path, 40)
    found = text.read(d, 10_000, cache=str(tmp_path / "cache"))
    assert found.windows == 1 and 40 < found.bytes < 200


@pytest.mark.parametrize("source", ["synthetic", "nanogpt"])
def test_what_is_no_text_is_refused(source):
    with pytest.raises(DataError, match="no text|holds ids"):
        text.read(Data(source=source), 64)


def test_texts_are_cut_where_positions_end():
    """Each token is counted once; a model that knows a beginning has it before every part."""
    t, ids = tokenizers.load(Data()), np.arange(1, 12, dtype=np.int32)
    plain = text.sequences(Reader(t, 256, None, 4), ids)
    assert [s.tokens.tolist() for s in plain] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11]]
    begun = text.sequences(Reader(t, 256, 7, 4), ids)
    assert [s.tokens.tolist() for s in begun] == [[7, 1, 2, 3, 4], [7, 5, 6, 7, 8], [7, 9, 10, 11]]
    assert text.sequences(Reader(t, 256, None, 4), ids[:0]) == []
    with pytest.raises(ConfigError, match="gives id 99, the model's vocabulary is 0 .. 63"):
        Reader(t, 64, None, 4).ids([b"abc"])


def test_losses_by_position_are_those_of_records():
    """Windows that are full and all alike long give what an evaluation of training gives."""
    rng = np.random.default_rng(1)
    nll = rng.gamma(2.0, 1.0, (12, 100))
    ours, theirs = Losses(np.full(12, 250), 100), Sums(100)
    theirs.add(nll)
    for w, row in enumerate(nll):
        ours.add(w, Sequence(np.zeros(101, np.int32)), row)
    for k, v in theirs.by_position().items():
        np.testing.assert_allclose(ours.by_position()[k], v, rtol=1e-9)
    v = ours.made()
    assert v["loss"] == pytest.approx(theirs.mean) and v["tokens"] == 1200 and v["bytes"] == 3000
    assert v["se"] == pytest.approx(theirs.se())
    assert v["se_windows"] == pytest.approx(theirs.se_windows())
    assert v["bits_per_byte"] == pytest.approx(nll.sum() / math.log(2) / 3000)
    worse = Losses(np.full(12, 250), 100)
    for w, row in enumerate(nll):
        worse.add(w, Sequence(np.zeros(101, np.int32)), row + 0.1)
    above, se = worse.against(ours)
    assert above == pytest.approx(0.1 * 100 / 250 / math.log(2)) and se < 1e-9
    # two halves of a window are one draw, and a part that is skipped is no part
    halves = Losses(np.full(12, 250), 100)
    for w, row in enumerate(nll):
        halves.add(w, Sequence(np.zeros(61, np.int32), 10), row[10:60])
        halves.add(w, Sequence(np.zeros(101, np.int32), 60), row[60:])
    assert halves.by_position()["first"][0] > 8
    assert halves.made()["tokens"] == 12 * 90


def test_standard_errors_are_those_of_repeated_draws():
    """Of a ratio over windows of unequal size; and of a difference, in which what is hard in a
    text is no noise.
    """
    rng = np.random.default_rng(2)
    means, errors, gaps, gap_errors = [], [], [], []
    for _ in range(400):
        sizes = rng.integers(20, 60, 64)
        hard = rng.normal(2.0, 0.4, 64) * sizes
        mean, se = ratio(hard, sizes)
        means.append(mean)
        errors.append(se)
        gap, gap_se = ratio(hard * 0 + rng.normal(0.1, 0.02, 64) * sizes, sizes)
        gaps.append(gap)
        gap_errors.append(gap_se)
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.12)
    assert np.std(gaps) == pytest.approx(np.mean(gap_errors), rel=0.12)
    assert np.mean(gap_errors) < 0.1 * np.mean(errors)


def test_bfloat16_is_near():
    m = model("llama")
    v, asked = variables(m), pieces()
    want = np.concatenate(Scorer(held(m, v)).score(asked).nll)
    low = Scorer(held(m, v, dtype="bfloat16"))
    got = np.concatenate(low.score(asked).nll)
    assert 0 < np.abs(got - want).max() < 0.2
    kernel = low.weights.whole()["params"]["group_0"]["layer_0"]["mixer"]["q"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
