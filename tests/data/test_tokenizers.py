"""What every tokenizer keeps: ids and the bytes of text that they stand for, whatever the text."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data import pipeline, tokenizers
from data.config import Data, DataError
from data.tokenizers import characters
from tests.conftest import ROOT
from tests.data import made

IDS = made.IDS
# whose ids decide the bytes: no file of counts beside the tokens is needed
BY_ID = {"bytes", "hf-gpt2", "hf-spaces", *(f"tiktoken-{name}" for name in made.TIKTOKEN)}


def test_every_entry_is_tried():
    assert {kind for kind, _ in made.ALL} == set(tokenizers.TOKENIZERS) - {
        "ids"
    }  # they have no text


@pytest.mark.parametrize("key", IDS)
def test_contract(kinds, key):
    d, t = kinds[key]
    assert 0 <= t.separator < t.vocab_size and t.fingerprint.startswith(d.tokenizer)
    assert t.unknown is None or 0 <= t.unknown < t.vocab_size
    assert (t.token_bytes is not None) == (key in BY_ID)
    assert t.fingerprint == tokenizers.load(d).fingerprint
    texts = [line.encode() for line in (*made.LINES[:3], made.ODD, "")] + [b"\xff\xfe caf\xc3"]
    for text, (ids, sizes) in zip(texts, t.counted_batch(texts)):
        assert ids.ndim == 1 and ids.max(initial=0) < t.vocab_size
        one, own = t.counted(text)
        assert own.dtype == np.uint32 and own.shape == ids.shape
        np.testing.assert_array_equal(one, ids)
        np.testing.assert_array_equal(one, t.encode(text))
        np.testing.assert_array_equal(own, t.token_bytes[ids] if sizes is None else sizes)
        assert (sizes is None) == (t.token_bytes is not None)
        assert t.separator not in ids
    plain = made.LINES[7].encode().strip()
    assert t.decode(t.encode(plain)).lower().strip() == plain
    assert all(isinstance(t.piece(int(i)), str) and t.piece(int(i)) for i in t.encode(plain))
    if t.token_bytes is not None:
        assert t.token_bytes.dtype == np.int64 and t.token_bytes.shape == (t.vocab_size,)
        assert t.token_bytes[t.separator] == 0


texts = st.binary(max_size=60) | st.text(max_size=40).map(lambda s: s.encode("utf-8", "replace"))
words = st.lists(st.sampled_from([*made.ODD.split(), " ", "  ", "\n", "fox", "the", "\0"]))


@pytest.mark.parametrize("key", [key for key in IDS if key != "bytes"])
@settings(deadline=None, max_examples=40)
@given(st.one_of(texts, words.map(lambda w: "".join(w).encode())))
@example(made.ODD.encode())
@example(b"A\xcc\x8a")
@example(b"\x00\t\x01")
def test_bytes_add_up_to_the_text(kinds, key, text):
    t = kinds[key][1]
    ids, sizes = t.counted(text)
    total = int(sizes.sum(dtype=np.int64))
    assert sizes.max(initial=0) <= len(text)
    if t.token_bytes is not None:
        assert t.decode(ids) == text and total == len(text)
    elif key.startswith("hf"):
        assert total == (len(text) if ids.size else 0)
    else:
        rest = text[total:].decode("utf-8", "replace")
        assert total <= len(text)
        assert not ids.size or not t._model.normalize(rest).strip("\u2581 ")


@pytest.mark.parametrize("key", [key for key in IDS if key != "bytes"])
def test_a_token_stands_for_its_own_text(kinds, key):
    """Token by token: the spans that the counts cut a line into are the pieces."""
    t = kinds[key][1]
    line = "the quick ﬁne  漢字 fox x² of caf\u00e9 A\u030a line 🦊 12".encode()
    ids, sizes = t.counted(line)
    cuts = np.cumsum(sizes)
    assert cuts[-1] == len(line)
    spans = [line[a:b] for a, b in zip([0, *cuts], cuts)]
    seen = 0
    for span, i in zip(spans, ids):
        if not span.isascii() or not span.strip():
            continue
        if t.token_bytes is not None:
            assert span == t.decode([i])
        piece = t.piece(int(i)).replace("\u2581", " ").replace("\u0120", " ").removeprefix("##")
        if i != t.unknown and piece.strip() and not piece.startswith("<0x"):
            assert span.decode().strip() == piece.strip(), (spans, piece)
            seen += 1
    assert seen >= 6
    if t.token_bytes is None:  # no character is cut: the last of its tokens stands for it
        for span in spans:
            span.decode()


@pytest.mark.parametrize("key", [k for k in IDS if not k.startswith(("bytes", "tiktoken"))])
@settings(deadline=None, max_examples=60)
@given(st.one_of(st.text(max_size=40), words.map("".join)))
@example("a  b\x01\n.c ")
@example("\u00bd\ufb01\ufb01\ufb01 fox")  # as long as before, and not in the same places
@example("fox q\u0301\u0323 \u1100\u1161 the")
@example("é \u2460 ｶﾞ Å ² \u2026")
def test_lengths_say_what_offsets_say(kinds, key, text):
    """Where bytes of tokens follow from their lengths, the library's offsets agree."""
    t, raw = kinds[key][1], text.encode("utf-8", "replace")
    if t.token_bytes is not None:
        return
    if key.startswith("sentencepiece"):
        places, ids = t._alignment.places(raw), t.encode(raw)
        sizes = None if places is None else t._alignment.sizes(places, ids)
        slow = t._by_offsets(raw)
    else:
        found, begins = characters.read(raw)
        e = t._library.encode(found, add_special_tokens=False)
        ids = np.array(e.ids, np.int32)
        sizes = t._lengths.sizes(raw, ids) if t._sure(raw, found) else None
        slow = t._by_offsets(raw, begins, e)
    if sizes is not None:
        np.testing.assert_array_equal(ids, slow[0])
        np.testing.assert_array_equal(sizes, slow[1])


def test_lengths_are_used(kinds):
    """On plain text by every kind that can: else the test above would be empty."""
    for key in ("unknown", "fallback", "bpe", "nfkc_folded", "identity", "suffix"):
        t, line = kinds[f"sentencepiece-{key}"][1], made.LINES[5].replace("\n", "  ").encode()
        assert t._alignment.sizes(t._alignment.places(line), t.encode(line)) is not None
    line = made.LINES[5].strip().encode()
    for key in ("composed", "compatible", "prefixed", "t5", "llama", "llama_unknown"):
        t = kinds[f"hf-{key}"][1]
        assert t._sure(line, line.decode()) and t._lengths.sizes(line, t.encode(line)) is not None


def test_a_byte_that_is_no_character_is_one_byte():
    for raw in (b"a\xff\xe6\xbc b\xed\xa0\x80\xf0\x9f\xa6\x8a", "x漢é🦊".encode(), b""):
        text, begins = characters.read(raw)
        assert begins[0] == 0 and begins[-1] == len(raw) and len(begins) == len(text) + 1
        spans = [raw[a:b] for a, b in zip(begins, begins[1:])]
        assert all(c == "\ufffd" and len(s) == 1 or s.decode() == c for c, s in zip(text, spans))


def test_bits_per_byte_of_one_code_agree_across_tokenizers(kinds, tmp_path):
    """A code that spends 3 bits on every byte has 3 bits per byte over each one's own windows, and
    the windows of a split hold its bytes.
    """
    text = "".join(line + (made.ODD if i % 3 == 0 else "") for i, line in enumerate(made.LINES))
    (tmp_path / "text.txt").write_text(text)
    seen = {}
    for key, (own, t) in kinds.items():
        d = dataclasses.replace(
            own, source="text", path=str(tmp_path / "text.txt"), validation_windows=10**6
        )
        windows, sizes = pipeline.load(d, 8, str(tmp_path / "cache")).counted_validation()
        held = t.counted(text.encode()[-len(text.encode()) // 20 :])[1]
        assert (
            sizes.sum() <= len(text.encode()) * 0.06
            and abs(sizes.sum() - held.sum()) < 0.1 * held.sum() + 60
        )
        nats = 3 * math.log(2) * float(sizes.sum())
        seen[key] = nats / math.log(2) / sizes.sum()
    assert all(v == pytest.approx(3, rel=1e-6) for v in seen.values()), seen


def test_special_tokens_are_no_part_of_text(kinds):
    """Their names are words; a file that could make the separator of text is counted by place."""
    for key in ("hf-gpt2", "hf-llama", "hf-t5", "tiktoken-gpt2"):
        t = kinds[key][1]
        ids, sizes = t.counted(b"a <|endoftext|> </s> b </S></s>")
        assert t.separator not in ids and sizes.sum() == 31 and ids.size > 8


def after(first):
    """A byte-level pre-tokenizer after another."""
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {"type": "Sequence", "pretokenizers": [first, level]}


def split(behavior):
    return {"type": "Split", "pattern": {"String": "x"}, "behavior": behavior, "invert": False}


@pytest.mark.parametrize(
    "change,by_id",
    [
        ({}, True),
        ({"normalizer": {"type": "Sequence", "normalizers": []}}, True),
        ({"normalizer": {"type": "Lowercase"}}, False),
        ({"pre_tokenizer.add_prefix_space": True}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}}, False),
        ({"pre_tokenizer": after({"type": "WhitespaceSplit"})}, False),
        ({"pre_tokenizer": after(split("Removed"))}, False),
        ({"pre_tokenizer": after(split("Isolated"))}, True),
        ({"model.ignore_merges": True}, False),  # <|endoftext|> in a text would be the separator
        ({"model.end_of_word_suffix": "</w>"}, False),
        ({"truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0,
                         "direction": "Right"}}, True),
    ],
    ids=str,
)  # fmt: skip
def test_whether_ids_decide_is_read_from_the_file(kinds, tmp_path, change, by_id):
    with open(kinds["hf-gpt2"][0].tokenizer_path) as f:
        spec = json.load(f)
    for path, value in change.items():
        *first, last = path.split(".")
        (spec[first[0]] if first else spec)[last] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    t = tokenizers.load(Data(tokenizer="hf", tokenizer_path=str(tmp_path)))  # the folder will do
    assert (t.token_bytes is not None) == by_id
    assert t.counted(made.ODD.encode())[1].sum() == len(made.ODD.encode())


def test_what_ends_a_document(kinds, tmp_path):
    with open(kinds["hf-llama"][0].tokenizer_path) as f:
        (tmp_path / "tokenizer.json").write_text(f.read())
    d = Data(tokenizer="hf", tokenizer_path=str(tmp_path / "tokenizer.json"))
    plain = tokenizers.load(d)
    assert plain.piece(plain.separator) == "</s>"
    beside = tmp_path / "tokenizer_config.json"
    for eos in ("<s>", {"content": "<s>"}):
        beside.write_text(json.dumps({"eos_token": eos}))
        named = tokenizers.load(d)
        assert named.piece(named.separator) == "<s>" and named.fingerprint != plain.fingerprint
    beside.write_text(json.dumps({"eos_token": "<|none|>"}))
    with pytest.raises(DataError, match="which .* does not know"):
        tokenizers.load(d)
    beside.write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        tokenizers.load(d)
    beside.write_text("{}")
    t = made.HF["bert"]().to_str().replace("[SEP]", "[sep]")
    (tmp_path / "tokenizer.json").write_text(t)
    with pytest.raises(DataError, match="no token that ends a document"):
        tokenizers.load(d)


def test_libraries_are_loaded_on_use():
    code = (
        "import sys, data.tokenizers; held = {'tokenizers', 'tiktoken', 'sentencepiece', 'jax'};"
        " sys.exit(' '.join(held & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("key", ["hf-gpt2", "tiktoken-gpt2"])
def test_a_missing_library_is_named(kinds, monkeypatch, key):
    kind = key.partition("-")[0]
    monkeypatch.setitem(sys.modules, {"hf": "tokenizers"}.get(kind, kind), None)
    with pytest.raises(DataError, match=r"not installed: pip install 'isoflop\[corpora\]'"):
        tokenizers.load(kinds[key][0])


def test_no_threads_within_processes(kinds):
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
