"""Models here under EleutherAI's lm-evaluation-harness, on a task made locally."""

import json
import pathlib

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the extra eval is not installed")

from data import tokenizers  # noqa: E402
from data.config import Data  # noqa: E402
from launch.evaluation import choices  # noqa: E402
from launch.evaluation.lm_harness import IsoflopLM  # noqa: E402
from launch.evaluation.score import Scorer  # noqa: E402
from launch.huggingface import folder  # noqa: E402
from model import parts  # noqa: E402
from tests.data import made  # noqa: E402
from tests.launch.test_evaluation import MODELS, model  # noqa: E402
from tests.model.test_model import variables  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the harness and what it imports

ITEMS = [
    {"question": "two and two are", "choices": ["four", "5"], "answer": 0},
    {"question": "the dog", "choices": ["barks", "\u6f22\u5b57", "is"], "answer": 1},
    {"question": "Q:\n", "choices": ["yes", "no way"], "answer": 1},
    {"question": "caf\u00e9 au", "choices": ["lait", "the"], "answer": 0},
]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    m = model("llama")
    path = str(tmp_path_factory.mktemp("harness") / "hf")
    folder.save(path, m, variables(m))
    return IsoflopLM(hf_dir=path)


def asked(lm, name: str, tmp_path, monkeypatch, **task):
    """What the harness makes of a task of its own, from a local file."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "task.jsonl")}},
        "test_split": "test",
        **task,
    }
    (tmp_path / "task.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    own = TaskManager(include_defaults=False)  # the harness' own tasks are 11,000 files
    found = lm_eval.simple_evaluate(
        lm, tasks=[config], bootstrap_iters=0, log_samples=True, task_manager=own
    )
    return found["results"][name], found["samples"][name]


def test_multiple_choice_agrees_with_ours(lm, tmp_path, monkeypatch):
    """The harness' own accuracies are those that isoflop evaluate gives for the same lines."""
    own = choices.read(_written(tmp_path))
    nll = Scorer(lm.scorer.weights).score(choices.prepared(lm.reader, own)).nll
    ours = choices.answered(own, nll)
    results, samples = asked(
        lm,
        "local_choice",
        tmp_path,
        monkeypatch,
        output_type="multiple_choice",
        doc_to_text="{{question}}",
        doc_to_target="answer",
        doc_to_choice="choices",
        metric_list=[{"metric": "acc"}, {"metric": "acc_bytes"}],
    )
    assert len(samples) == len(ITEMS)
    assert results["acc,none"] == pytest.approx(ours["accuracy"])
    assert results["acc_bytes,none"] == pytest.approx(ours["accuracy_per_byte"])


def _written(tmp_path) -> str:
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, ITEMS)))
    return str(path)


def test_rolling_likelihood_counts_every_token_once(lm, tmp_path, monkeypatch):
    """A text of 60 bytes through 24 positions: the last window sees what was counted before it."""
    from lm_eval.api.instance import Instance

    body = "".join(chr(97 + i * i % 26) for i in range(60))
    whole = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (body,), 0)])[0]
    parts = [(body[:24], ""), (body[24:48], body[23]), (body[48:], body[35:48])]
    pairs = [Instance("loglikelihood", {}, (before, text), 0) for text, before in parts]
    assert whole == pytest.approx(sum(p for p, _ in lm.loglikelihood(pairs)), abs=1e-3)
    _, samples = asked(
        lm,
        "local_perplexity",
        tmp_path,
        monkeypatch,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{question}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )
    assert len(samples) == len(ITEMS)


def test_text_is_drawn_until_a_word(lm, tmp_path, monkeypatch):
    """Greedy text is the one whose every token is the most probable; it ends before the word."""
    from lm_eval.api.instance import Instance

    def drawn(until, count=6):
        how = {"until": until, "max_gen_toks": count}
        asked = [Instance("generate_until", {}, (c, how), 0) for c in ("ab", "the dog")]
        return lm.generate_until(asked)

    plain = drawn([])
    ids = lm.reader.tokenizer.encode(plain[0].encode())
    if plain[0].isascii() and len(ids):
        (_, best), *_ = lm.loglikelihood([Instance("loglikelihood", {}, ("ab", plain[0]), 0)])
        assert best
    cut = drawn([plain[1][1:3]])
    assert cut[1] == plain[1].split(plain[1][1:3])[0]
    results, samples = asked(
        lm,
        "local_text",
        tmp_path,
        monkeypatch,
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="{{choices[answer]}}",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 4},
        metric_list=[{"metric": "exact_match"}],
    )
    assert len(samples) == len(ITEMS) and 0 <= results["exact_match,none"] <= 1


def test_the_harness_finds_the_model_by_name(lm):
    from lm_eval.api.registry import get_model

    assert get_model("isoflop") is IsoflopLM
    assert np.isfinite(lm.eot_token_id) and lm.tokenizer_name == "bytes"


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


@pytest.mark.parametrize("kind,ends", [("gpt2", "<|endoftext|>"), ("llama", "</s>")])
def test_the_harness_reads_the_folder_alike(kind, ends, tmp_path):
    """Its `hf` model, which is transformers', on the same folder: tokens of contexts and
    continuations, beginnings, likelihoods, greedy text.
    """
    pytest.importorskip("accelerate", reason="the harness' hf model needs it")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    spec = json.loads(pathlib.Path(made.hf(tmp_path, kind)).read_text())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": ends}
    if kind == "llama":
        spec["post_processor"], config["bos_token"] = TEMPLATE, "<s>"
    path = tmp_path / "hf"
    path.mkdir()
    (path / "tokenizer.json").write_text(json.dumps(spec))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    size = tokenizers.load(Data(tokenizer="hf", tokenizer_path=str(path))).vocab_size
    m = parts.model(MODELS["llama"][0], vocab_size=size, seq_len=48, d_model=16)
    folder.save(str(path), m, variables(m))
    ours = IsoflopLM(hf_dir=str(path))
    theirs = HFLM(pretrained=str(path), device="cpu", dtype="float32", batch_size=2)
    pairs = [
        *[("two and two are", " four"), ("The dog ", " barks")],
        *[("", " line 3"), ("Q:\n", "no way")],
        ("caf\u00e9s \u6f22\u5b57", " \u6f22\u5b57 is \U0001f98a"),
    ]
    asked = [Instance("loglikelihood", {}, p, i) for i, p in enumerate(pairs)]
    for mine, other in zip(ours.loglikelihood(asked), theirs.loglikelihood(asked)):
        assert mine == (pytest.approx(other[0], abs=2e-3), other[1])
    how = {"until": ["\n"], "max_gen_toks": 8}
    asked = [Instance("generate_until", {}, (c, how), i) for i, c in enumerate(("the fox", "line"))]
    assert ours.generate_until(asked) == theirs.generate_until(asked)
    if kind == "gpt2":  # of a model with a beginning theirs counts it as text
        texts = ("".join(made.LINES[:6]), "short")
        asked = [Instance("loglikelihood_rolling", {}, (t,), i) for i, t in enumerate(texts)]
        mine, other = (x.loglikelihood_rolling(asked) for x in (ours, theirs))
        assert mine == pytest.approx(other, abs=5e-3)
