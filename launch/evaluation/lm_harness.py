"""Models here as a model of EleutherAI's lm-evaluation-harness, whose tasks are then asked of them:

    from launch.evaluation.lm_harness import IsoflopLM
    lm_eval.simple_evaluate(IsoflopLM(hf_dir="pythia-70m"), tasks=["arc_easy"])

Needs `pip install "isoflop[eval]"`. Contexts and continuations are made into tokens as the harness'
own `hf` model makes them. In three things it differs: where a context's last word goes on in the
continuation this one scores the continuation by itself and that one stops; a beginning stays where
a context is cut; and in rolling likelihoods it is not counted as text.
"""

import numpy as np
from lm_eval import utils
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from launch import config
from launch.config import ConfigError
from launch.evaluation import choices, subject, weights
from launch.evaluation.score import Scorer, Sequence
from launch.runs import generate
from model.sample import Sampling

MOST_NEW = 256  # tokens of an answer, where a task says nothing, as in the harness


@register_model("isoflop")
class IsoflopLM(LM):
    """A folder in Hugging Face's format (hf_dir), or a run's folder (run). context, dtype, begin:
    those of `isoflop evaluate`; stream: read the weights layer by layer.
    """

    def __init__(
        self,
        hf_dir: str = "",
        run: str = "",
        context: int = 0,
        dtype: str = "auto",
        begin: str = "auto",
        stream: bool | None = None,
        batch_size: int = 16,
        **ignored,
    ):
        super().__init__()
        if bool(hf_dir) == bool(run):
            raise ConfigError("IsoflopLM: give one of hf_dir and run")
        name = subject.names([hf_dir or run])[0]
        if hf_dir:
            self.subject = subject.released(hf_dir, name, None, context, dtype, begin)
        else:
            self.subject = subject.own(run, name, context, dtype)
        self.reader = self.subject.reader
        self.scorer = Scorer(subject.opened(self.subject, stream))
        self._batch = batch_size if isinstance(batch_size, int) else 16

    @property
    def tokenizer_name(self) -> str:
        return self.subject.tokenizer

    @property
    def eot_token_id(self) -> int:
        return int(self.reader.tokenizer.separator)

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        pairs = choices.encoded(self.reader, [r.args for r in requests])
        asked = [choices.sequence(self.reader, *own) for own in pairs]
        found = self.scorer.score(asked, best=True)
        out = [(-float(nll.sum()), bool(hit.all())) for nll, hit in zip(found.nll, found.best)]
        for r, one in zip(requests, out):
            self.cache_hook.add_partial("loglikelihood", r.args, one)
        return out

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """Windows as the harness cuts them: the last one has what was counted before as context."""
        asked, owner = [], []
        for k, r in enumerate(requests):
            ids = self.reader.ids([r.args[0].encode()])[0].tolist()
            windows = utils.get_rolling_token_windows(
                ids, self.reader.start[0], self.reader.positions, 1
            )
            for given, counted in windows:
                tokens = np.array([*given, counted[-1]], np.int32)
                asked.append(Sequence(tokens, len(given) - len(counted)))
                owner.append(k)
        out = [0.0] * len(requests)
        for k, nll in zip(owner, self.scorer.score(asked).nll):
            out[k] -= float(nll.sum())
        for r, one in zip(requests, out):
            self.cache_hook.add_partial("loglikelihood_rolling", r.args, one)
        return out

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        if self.scorer.weights.stream:
            raise ConfigError("text is drawn from weights that are held: leave stream out")
        groups: dict[str, list[int]] = {}
        for i, r in enumerate(requests):
            groups.setdefault(repr(sorted(r.args[1].items(), key=str)), []).append(i)
        out = [""] * len(requests)
        for members in groups.values():
            how = requests[members[0]].args[1]
            for at in range(0, len(members), self._batch):
                own = members[at : at + self._batch]
                for i, text in zip(own, self._drawn([requests[i].args[0] for i in own], how)):
                    out[i] = text
                    self.cache_hook.add_partial("generate_until", requests[i].args, text)
        return out

    def _drawn(self, contexts: list[str], how: dict) -> list[str]:
        """What follows each context, up to the first of the words that end it."""
        count = int(how.get("max_gen_toks", MOST_NEW))
        room = self.reader.positions - count
        if room < 1:
            raise ConfigError(
                f"max_gen_toks={count} leaves no room for a context in the"
                f" {self.reader.positions} positions of the model: ask for fewer"
            )
        start = np.array([] if self.reader.begins is None else [self.reader.begins], np.int32)
        prompts = []
        for ids in self.reader.ids([c.encode() for c in contexts]):
            kept = np.concatenate([start, ids[max(0, len(ids) + len(start) - room) :]])
            prompts.append(kept if kept.size else np.array(self.reader.start, np.int32))
        sampled = bool(how.get("do_sample")) or float(how.get("temperature", 0) or 0) > 0
        temperature = float(how.get("temperature", 1.0)) if sampled else 0.0
        sampling = Sampling(temperature, int(how.get("top_k", 0)), float(how.get("top_p", 1.0)))
        model, longest = self.subject.model, max(map(len, prompts)) + count
        if self.scorer.weights.by_call:
            model = weights.at_length(model, longest)
        run = config.Run(model=model, dtype=self.subject.dtype)
        found = generate.generate(run, self.scorer.weights.whole(), prompts, count, sampling)
        return [self._ended(row, how.get("until") or []) for row in found.tokens]

    def _ended(self, ids: np.ndarray, until: str | list[str]) -> str:
        tokenizer = self.reader.tokenizer
        ends = np.flatnonzero(ids == tokenizer.separator)
        text = tokenizer.decode(ids[: ends[0]] if ends.size else ids).decode("utf-8", "replace")
        for word in [until] if isinstance(until, str) else until:
            text = text.split(word)[0] if word else text
        return text
