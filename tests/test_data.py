"""Addresses, splits, tokenizers, token files, and the source whose probabilities are known."""

import os

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from data import pack, pipeline, sources, tokenizers
from data.config import Data, DataError
from data.synthetic import DIGITS, KEYS, SURE, VALUES, VOCAB, Synthetic


@pytest.fixture
def text(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("".join(f"line {j} of file {i}: the quick brown fox\n" for j in range(400)))
    return Data(source="text", path=str(tmp_path / "*.txt"), validation_windows=8)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 5))
def test_permute_is_a_permutation(n, seed, epoch):
    assert sorted(pipeline.permute(np.arange(n), n, seed, np.full(n, epoch))) == list(range(n))


def test_permute_depends_on_seed_and_epoch_and_mixes():
    n = 5000
    p = [pipeline.permute(np.arange(n), n, seed, np.full(n, epoch)) for seed, epoch in ((0, 0), (1, 0), (0, 1))]
    assert all((a != b).mean() > 0.99 for a, b in ((p[0], p[1]), (p[0], p[2])))
    for q in p:
        assert abs(np.corrcoef(np.arange(n), q)[0, 1]) < 0.05 and abs(np.corrcoef(q[:-1], q[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("source", ["text", "synthetic"])
def test_batches_are_addressed(source, text, tmp_path):
    d = text if source == "text" else Data(source="synthetic")
    a, b = (pipeline.load(d, 32, str(tmp_path / "cache")) for _ in range(2))
    [b.batch(s, 4) for s in range(7)]
    whole = a.batch(10**6 + 3, 8)
    assert whole.shape == (8, 33) and whole.dtype == np.int32
    np.testing.assert_array_equal(whole, b.batch(10**6 + 3, 8))
    np.testing.assert_array_equal(whole, np.concatenate([a.batch(10**6 + 3, 8, slice(i, i + 2)) for i in range(0, 8, 2)]))
    np.testing.assert_array_equal(a.validation(), b.validation())
    other = pipeline.load(Data(**{**d.__dict__, "seed": 1}), 32, str(tmp_path / "cache"))
    assert not np.array_equal(other.batch(0, 8), a.batch(0, 8))
    np.testing.assert_array_equal(other.validation(), a.validation())


def test_an_epoch_reads_every_window_once(text, tmp_path):
    ds = pipeline.load(text, 32, str(tmp_path / "cache"))
    n = (ds.dataset_tokens - 1) // 32
    seen = np.concatenate([ds.batch(s, 1) for s in range(n)])
    train = np.asarray(pack.prepare(text, str(tmp_path / "cache")).tokens["train"])
    want = np.stack([train[i * 32 : i * 32 + 33] for i in range(n)])
    np.testing.assert_array_equal(seen[np.lexsort(seen.T)], want[np.lexsort(want.T)])
    assert ds.epochs(n) == 1


def test_python_source_splits_by_package():
    corpus = sources.load(Data())
    train, held = (b"".join(corpus.documents(s)) for s in ("train", "validation"))
    assert len(train) > 3e6 and 1e5 < len(held) < 0.3 * len(train)
    import json.decoder

    own = open(json.decoder.__file__, "rb").read()
    assert (own in train) != (own in held)
    assert b"import pydoc" in train + held and b"topics = {" not in train  # pydoc_data is left out
    assert sources.load(Data()).fingerprint == corpus.fingerprint


def test_text_validation_is_the_tail_of_each_file(text):
    corpus = sources.load(text)
    train, held = (list(corpus.documents(s)) for s in ("train", "validation"))
    assert len(train) == len(held) == 3
    assert all(a.endswith(b"\n") and b.startswith(b"line") and 0.03 < len(b) / len(a) < 0.07 for a, b in zip(train, held))


def test_fingerprint_follows_content(text, tmp_path):
    before = sources.load(text).fingerprint
    (tmp_path / "1.txt").write_text("other\n" * 500)
    assert sources.load(text).fingerprint != before


@pytest.fixture
def sentencepiece_model(tmp_path, text):
    import sentencepiece

    prefix = str(tmp_path / "sp")
    sentencepiece.SentencePieceTrainer.train(input=str(tmp_path / "0.txt"), model_prefix=prefix, vocab_size=60, byte_fallback=False, hard_vocab_limit=False, minloglevel=2)
    return prefix + ".model"


def test_sentencepiece(text, sentencepiece_model, tmp_path):
    d = Data(**{**text.__dict__, "tokenizer": "sentencepiece", "tokenizer_path": sentencepiece_model})
    t = tokenizers.load(d)
    ids = t.encode(b"line 3 of file 0: the quick brown fox")
    # every byte of the text is in one token, and the model's dummy prefix adds one space
    assert t.token_bytes[ids].sum() == len("line 3 of file 0: the quick brown fox") + 1
    ds = pipeline.load(d, 16, str(tmp_path / "cache"))
    assert ds.batch(0, 4).max() < ds.vocab_size and ds.fingerprints["tokenizer"].startswith("sentencepiece:")


def test_token_files_know_their_tokenizer(text, sentencepiece_model, tmp_path):
    files = pack.prepare(text, str(tmp_path / "cache"))
    ready = Data(source="tokens", path=files.folder)
    np.testing.assert_array_equal(pipeline.load(ready, 32).batch(3, 4), pipeline.load(text, 32, str(tmp_path / "cache")).batch(3, 4))
    with pytest.raises(DataError, match="made with tokenizer bytes"):
        pipeline.load(Data(source="tokens", path=files.folder, tokenizer="sentencepiece", tokenizer_path=sentencepiece_model), 32)
    with open(os.path.join(files.folder, "train.bin"), "ab") as f:
        f.write(b"12")
    with pytest.raises(DataError, match="do not agree"):
        pipeline.load(ready, 32)


def test_tokenised_once(text, tmp_path, monkeypatch):
    pack.prepare(text, str(tmp_path / "cache"))
    monkeypatch.setattr(pack, "_write", lambda *a: pytest.fail("tokenised twice"))
    pack.prepare(text, str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore")  # of the library's own dependencies
def test_tfds_without_tensorflow(tmp_path):
    import sys

    import tensorflow_datasets as tfds

    class LocalLines(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((i, {"text": f"document {i} " * 20}) for i in range(200))

    LocalLines(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    ds = pipeline.load(Data(source="tfds:local_lines", path=str(tmp_path), validation_windows=4), 32, str(tmp_path / "cache"))
    assert bytes(ds.batch(0, 1)[0].astype(np.uint8)).count(b"document") >= 2
    assert "tensorflow" not in sys.modules
    with pytest.raises(DataError, match="download_and_prepare"):
        pipeline.load(Data(source="tfds:no_such_set", path=str(tmp_path)), 32)


@pytest.mark.parametrize("d,words", [
    (Data(source="text"), "needs data.path"), (Data(source="text", path="/nonexistent/*.txt"), "matches no file"), (Data(source="txt"), "choose from"),
    (Data(tokenizer="byte"), "choose from bytes"), (Data(tokenizer="sentencepiece", tokenizer_path="/none.model"), "not a file"), (Data(source="tokens", path="/nonexistent"), "not a folder of token files"),
    (Data(source="synthetic", zipf=0.0), "must be positive"), (Data(validation_windows=0), "at least 1"), (Data(source="tfds:"), "needs the name"),
])
def test_bad_data_says_what_to_do(d, words, tmp_path):
    with pytest.raises(DataError, match=words):
        pipeline.load(d, 32, str(tmp_path / "cache"))


def test_empty_corpus_and_short_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("")
    d = Data(source="text", path=str(tmp_path / "a.txt"))
    with pytest.raises(DataError, match="empty"):
        pipeline.load(d, 32, str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("short\n" * 10)
    with pytest.raises(DataError, match="fewer than one window"):
        pipeline.load(d, 128, str(tmp_path / "cache"))
    (tmp_path / "m.model").write_text("not a model")
    with pytest.raises(DataError, match="not a sentencepiece model"):
        tokenizers.load(Data(tokenizer="sentencepiece", tokenizer_path=str(tmp_path / "m.model")))


def test_synthetic_probabilities_are_the_frequencies():
    s = Synthetic(0.5)
    facts = s.facts("train", 0, np.arange(400_000))
    key = facts[:, 0] * DIGITS + facts[:, 1] - DIGITS
    seen = np.bincount(key, minlength=KEYS) / len(key)
    p = s._pair.reshape(-1)
    top = np.argsort(-p)[:50]
    np.testing.assert_allclose(seen[top], p[top], atol=5 * np.sqrt(p[top] / len(key)).max())
    own = (facts[:, 2] - 2 * DIGITS == s._own[key]).mean()
    assert own == pytest.approx(SURE + (1 - SURE) / VALUES, abs=0.003)
    assert facts.max() < VOCAB and p.sum() == pytest.approx(1)


def test_synthetic_nll_averages_to_the_entropy_rate():
    ds = pipeline.load(Data(source="synthetic", validation_windows=4000), 126)
    nll = ds.true_nll(ds.validation())
    # T = 126 targets of a window of 127: the facts' first tokens are one short of a third
    assert nll.shape == (4000, 126)
    by_fact = nll[:, 2:125].reshape(4000, -1, 3).mean(2)
    assert by_fact.mean() == pytest.approx(ds.source.entropy_rate, abs=4 * by_fact.std() / by_fact.size**0.5)


def test_synthetic_nll_by_hand():
    s = Synthetic(0.7)
    a, b, v = s.facts("train", 3, np.array([5]))[0]
    window = np.array([[a, b, v, a, b, v]])
    p_first, p_pair = s._pair.sum(1)[a], s._pair[a, b - DIGITS]
    p_value = (1 - SURE) / VALUES + (SURE if s._own[a * DIGITS + b - DIGITS] == v - 2 * DIGITS else 0)
    np.testing.assert_allclose(s.nll(window)[0], -np.log([p_pair / p_first, p_value, p_first, p_pair / p_first, p_value]))


def test_a_counting_learner_meets_the_derived_exponent():
    """The derivation in data/synthetic.py, by its own learner: mass of keys not yet seen after n facts falls as n^(-a/(1+a))."""
    s = Synthetic(0.5)
    p = s._pair.reshape(-1)
    n = np.geomspace(1e3, 3e4, 8)
    unseen = [(p * (1 - p) ** k).sum() for k in n]
    slope = np.polyfit(np.log(n), np.log(unseen), 1)[0]
    assert -slope == pytest.approx(s.data_exponent, abs=0.08)
