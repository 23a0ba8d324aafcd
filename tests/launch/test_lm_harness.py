"""Models here under EleutherAI's lm-evaluation-harness, on a task made locally."""

import json

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the extra eval is not installed")

from launch.evaluation import choices  # noqa: E402
from launch.evaluation.lm_harness import IsoflopLM  # noqa: E402
from launch.evaluation.score import Scorer  # noqa: E402
from launch.huggingface import folder  # noqa: E402
from tests.launch.test_evaluation import model  # noqa: E402
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
    ours = choices.answered(Scorer(lm.scorer.weights), own, choices.prepared(lm.reader, own))
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
