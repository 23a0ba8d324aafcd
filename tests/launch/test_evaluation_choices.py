"""What models are asked beside text: choices; how their texts begin, which tokenizers are theirs,
what they are called.
"""

import json
import pathlib

import jax
import numpy as np
import pytest

from data import tokenizers
from data.config import Data, DataError
from launch.config import ConfigError
from launch.evaluation import choices, evaluate, subject, text
from launch.evaluation.score import Scorer
from launch.evaluation.text import Reader
from launch.huggingface import folder, tokenizer
from model import parts
from model.config import Execution
from model.lm import LM
from tests.data import made
from tests.launch.test_evaluation import MODELS, held, model
from tests.model.test_model import variables


def spec(tmp_path, config=None, processor=None, name="gpt2"):
    found = json.loads(pathlib.Path(made.hf(tmp_path, name)).read_text())
    found["post_processor"] = processor
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return str(tmp_path)


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}},
}
PLAIN = {**TEMPLATE, "single": [{"Sequence": {"id": "A", "type_id": 0}}]}
NESTED = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, TEMPLATE]}


@pytest.mark.parametrize(
    "config,processor,want",
    [
        (None, None, None),
        (None, TEMPLATE, 5),
        (None, NESTED, 5),
        (None, PLAIN, None),
        ({"add_bos_token": False}, TEMPLATE, None),
        ({"add_bos_token": True, "bos_token": "<|endoftext|>"}, None, 0),
        ({"add_bos_token": True, "bos_token": {"content": "<|endoftext|>"}}, PLAIN, 0),
        ({"bos_token": "<|endoftext|>"}, None, None),  # it has one, and does not say so
    ],
)
def test_how_texts_begin(config, processor, want, tmp_path):
    assert tokenizer.begins(spec(tmp_path, config, processor)) == want


def test_how_texts_begin_of_a_sentencepiece_model(tmp_path):
    made.sentencepiece(tmp_path, "bpe")
    (tmp_path / "bpe.model").rename(tmp_path / "tokenizer.model")
    assert tokenizer.begins(str(tmp_path)) == 1  # <s>, as of Llama
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    assert tokenizer.begins(str(tmp_path)) is None
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ConfigError, match="is damaged"):
        tokenizer.begins(str(tmp_path))


def test_a_beginning_without_an_id_is_refused(tmp_path):
    path = spec(tmp_path, {"add_bos_token": True, "bos_token": "<none>"})
    with pytest.raises(ConfigError, match="has no id"):
        tokenizer.begins(path)


GOOD = {"question": "q", "choices": ["a", "b"], "answer": 0}
BAD = {
    "no JSON": ("{", "line 2 is not JSON"),
    "a list": ("[]", "has no question"),
    "no question": (json.dumps({**GOOD, "question": 3}), "has no question"),
    "no choices": (json.dumps({"question": "q", "answer": 0}), "has no choices"),
    "one choice": (json.dumps({**GOOD, "choices": ["a"]}), "has no choices, at least two"),
    "empty choice": (json.dumps({**GOOD, "choices": ["a", " "]}), "an empty choice"),
    "number": (json.dumps({**GOOD, "choices": ["a", 1]}), "one that is no text"),
    "twice": (json.dumps({**GOOD, "choices": ["a", "a"]}), "has a choice twice"),
    "beyond": (json.dumps({**GOOD, "answer": 2}), "the answer 2 is none of 0 .. 1"),
    "negative": (json.dumps({**GOOD, "answer": -1}), "the answer -1 is none of"),
    "true": (json.dumps({**GOOD, "answer": True}), "the answer True is none of"),
    "text": (json.dumps({**GOOD, "answer": "c"}), "the answer 'c' is none of its choices"),
    "none": (json.dumps({**GOOD, "answer": None}), "the answer None is none of"),
    "two blanks": (json.dumps({**GOOD, "question": "___ or ___"}), "has 2 blanks"),
    "surrogate": (
        '{"question": "\\ud800", "choices": ["a", "b"], "answer": 0}',
        "half a character",
    ),
    "deep": ("[" * 100_000, "is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_task_line_that_is_wrong_is_named(case, tmp_path):
    line, words = BAD[case]
    path = tmp_path / "task.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(DataError, match="line 2") as e:
        choices.read(str(path))
    assert words in str(e.value) and "\n" not in str(e.value)


def test_task_files_that_hold_nothing(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    for name, words in (("empty", "holds no line"), ("latin", "cannot be read"), ("no", "cannot")):
        with pytest.raises(DataError, match=words):
            choices.read(str(tmp_path / f"{name}.jsonl"))


def test_how_choices_follow_their_question(tmp_path):
    lines = [
        {"question": "Two and two are", "choices": ["four", "five"], "answer": "four"},
        {"question": "Q:\n", "choices": ["a\u2028b", "b"], "answer": 1},
        {"question": "The ____ barked.", "choices": ["dog", "cat"], "answer": 0},
        {"question": "", "choices": ["x", "y"], "answer": 0},
    ]
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(json.dumps(x, ensure_ascii=False) for x in lines))
    a, b, c, d = choices.read(str(path))
    assert (a.before, a.space, a.scored) == ("Two and two are", " ", ("four", "five"))
    assert (b.space, b.scored, b.answer) == ("", ("a\u2028b", "b"), 1)
    assert (c.before, c.space, c.scored[1]) == ("The ", "", "cat barked.")
    assert (d.before, d.space) == ("", "")
    reader = Reader(tokenizers.load(Data()), 256, None, 64)
    (context, scored), (_, x) = choices.encoded(reader, [("The ", "cat"), ("", "x")])
    assert bytes(context.tolist()) == b"The" and bytes(scored.tolist()) == b" cat"
    assert bytes(x.tolist()) == b"x"


def test_a_context_that_is_too_long_loses_its_beginning():
    t = tokenizers.load(Data())
    context, scored = np.arange(1, 20, dtype=np.int32), np.array([50, 51, 52], np.int32)
    s = choices.sequence(Reader(t, 256, None, 8), context, scored)
    assert s.tokens.tolist() == [*range(14, 20), 50, 51, 52] and s.width == 8 and s.skip == 5
    s = choices.sequence(Reader(t, 256, 7, 8), context, scored)
    assert s.tokens.tolist() == [7, *range(15, 20), 50, 51, 52] and s.skip == 5
    s = choices.sequence(Reader(t, 256, None, 8), context[:0], scored)
    assert s.tokens.tolist() == [0, 50, 51, 52] and s.skip == 0
    with pytest.raises(ConfigError, match="a choice of 3 tokens is longer than the 2"):
        choices.sequence(Reader(t, 256, None, 2), context, scored)


def test_answers_are_those_of_the_logits(tmp_path):
    """A choice is as likely as its tokens are, one after the other; of three models one that knows
    a choice by heart gets all right.
    """
    m = model("llama")
    v = variables(m)
    rng = np.random.default_rng(3)
    lines = []
    for _ in range(12):
        words = ["".join(map(chr, rng.integers(97, 123, rng.integers(1, 6)))) for _ in range(3)]
        if len(set(words)) == 3:
            lines.append({"question": "which", "choices": words, "answer": int(rng.integers(3))})
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    items = choices.read(str(path))
    reader = Reader(tokenizers.load(Data()), 256, None, 24)
    nll = Scorer(held(m, v)).score(choices.prepared(reader, items)).nll
    got = choices.answered(items, nll)
    logits = jax.jit(lambda v, t: jax.nn.log_softmax(LM(m, Execution()).apply(v, t)[0]))
    right = per_byte = 0
    for x in lines:
        sums = []
        for c in x["choices"]:
            tokens = np.zeros(24, np.int32)
            tokens[: 6 + len(c)] = list(f"which {c}".encode())
            p = np.asarray(logits(v, tokens[None]))[0]
            sums.append(sum(p[i - 1, tokens[i]] for i in range(5, 6 + len(c))))
        right += int(np.argmax(sums)) == x["answer"]
        sizes = [len(c) for c in x["choices"]]
        per_byte += int(np.argmax(np.array(sums) / sizes)) == x["answer"]
    assert got["items"] == len(lines) and got["chance"] == pytest.approx(1 / 3)
    assert got["accuracy"] == pytest.approx(right / len(lines))
    assert got["accuracy_per_byte"] == pytest.approx(per_byte / len(lines))
    assert right != per_byte or right not in (0, len(lines))


def test_intervals_of_shares():
    """Against the table of Brown, Cai and DasGupta 2001's formula, worked by hand for 3 of 10."""
    low, high = choices.wilson(3, 10)
    assert (low, high) == (pytest.approx(0.10779, abs=1e-4), pytest.approx(0.60322, abs=1e-4))
    assert choices.wilson(0, 20)[0] == 0 and choices.wilson(20, 20)[1] == 1
    assert 0 < choices.wilson(20, 20)[0] < 0.9


def test_models_of_another_vocabulary_are_refused(tmp_path):
    m = model("llama")
    folder.save(str(tmp_path), m, variables(m))
    good = subject.released(str(tmp_path), "a")
    assert good.kind == "llama" and good.reader.begins is None and good.reader.positions == 24
    assert subject.released(str(tmp_path), "a", begin="always").reader.begins == 0
    spec(tmp_path)  # 320 pieces
    with pytest.raises(ConfigError, match="it is the tokenizer of another model"):
        subject.released(str(tmp_path), "a")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="tokenizer.json"):
        subject.released(str(tmp_path), "a")
    (tmp_path / "tokenizer.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text()) | {"vocab_size": 320}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        subject.released(str(tmp_path), "a")


@pytest.mark.parametrize("size,fits", [(330, True), (400, False)])
def test_tables_may_be_filled_up_a_little(size, fits, tmp_path):
    """A tokenizer of 320 pieces, or about so many, belongs to a table that is not much larger."""
    m = parts.model(MODELS["llama"][0], vocab_size=size, seq_len=24, d_model=16)
    folder.save(str(tmp_path), m, variables(m))
    spec(tmp_path)
    if fits:
        known = subject.released(str(tmp_path), "a").reader.tokenizer.vocab_size
        assert 0.9 * size <= known < size
        return
    with pytest.raises(ConfigError, match="it is the tokenizer of another model"):
        subject.released(str(tmp_path), "a")


def test_names_are_the_shortest_that_differ(tmp_path):
    assert subject.names(["a/step1", "b/step1", "c"]) == ["a/step1", "b/step1", "c"]
    assert subject.names(["x/y/m/", "/z/m2"]) == ["m", "m2"]
    with pytest.raises(ConfigError, match="is given twice"):
        subject.names(["a", "./a"])


def test_unknown_words_are_counted(tmp_path):
    """A tokenizer that has no piece for a character hides it."""
    path = made.sentencepiece(tmp_path, "unknown")
    t = tokenizers.load(Data(tokenizer="sentencepiece", tokenizer_path=path))
    m = parts.model(
        *MODELS["llama"][:1], vocab_size=t.vocab_size, seq_len=24, d_model=16, n_layers=2
    )
    s = subject.Subject(
        "a", "a", "llama", m, Reader(t, m.vocab_size, None, 24), "float32", None, 24, "", None, None
    )
    texts = text.Texts("c", "f", 20, 1, [text.Text(0, "\u6f22 line of".encode())])
    assert 0 < evaluate.prepared(s, texts, {}).unknown < 0.5
    assert evaluate.prepared(s, texts, {}).changed == 1
    both = [text.Text(0, b"line of the"), text.Text(0, b" line\n of  the")]
    found = evaluate.prepared(s, texts._replace(texts=both), {})
    assert (found.unknown, found.changed) == (0, 0.5)  # it makes one space of two, and of lines
    with pytest.raises(DataError, match="a: its tokenizer makes no token of this text"):
        evaluate.prepared(s, texts._replace(texts=[text.Text(0, b"  ")]), {})
