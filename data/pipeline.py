"""Batches addressed by (seed, step): no iterator, no state, nothing to save for a resume.

A dataset is cut into windows of T+1 tokens at multiples of T. Windows are visited in a random order
that is a new permutation every epoch: the permutation is a Feistel network, so the i-th window is
computed, not looked up. A batch is one gather.
"""

import numpy as np

from data import prepare, tokenizers
from data.config import Data, DataError
from data.synthetic import VOCAB, Synthetic


def _mix(x: np.ndarray, key: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = (x + np.uint64(key)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return z ^ (z >> np.uint64(29))


def _key(seed: int, epoch: np.ndarray, order: int) -> np.ndarray:
    """One number for each (seed, epoch)."""
    if order == 1:
        return _mix(epoch, (seed * 2 + 1) % 2**63)
    return _mix(epoch, int(_mix(np.array(seed, np.uint64), 0x2545F4914F6CDD1D)))


def permute(i: np.ndarray, n: int, seed: int, epoch: np.ndarray, order: int = 2) -> np.ndarray:
    """Position of items `i` under a pseudo-random permutation of range(n), one per (seed, epoch).
    Four Feistel rounds on the next even power of two; items that fall outside are walked on until
    they fall inside. `order`: see Data; with 1, (seed, epoch) and (seed + 1, epoch - 2) are the
    same.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    low = np.uint64(2**half - 1)
    key = _key(seed, np.asarray(epoch, np.uint64), order)
    x = np.asarray(i, np.uint64).copy()
    todo = np.ones(x.shape, bool)
    while todo.any():
        a, b = x >> np.uint64(half), x & low
        for r in range(4):
            a, b = b, a ^ (_mix(b + key, r * 0x632BE59BD9B4E019 % 2**63) & low)
        x = np.where(todo, (a << np.uint64(half)) | b, x)
        todo = x >= n
    return x.astype(np.int64)


class Text:
    """Windows of prepared token files."""

    def __init__(self, d: Data, seq_len: int, cache: str = ""):
        files = prepare.prepare(d, cache)
        self._tokens, self._seq_len, self._seed = files.rows, seq_len, d.seed
        self._order = d.order
        tokenizer = tokenizers.load(d)
        self.vocab_size, self._by_id, self._by_place = (
            tokenizer.vocab_size,
            tokenizer.token_bytes,
            files.sizes,
        )
        self.corpus = files.meta["corpus"]
        self.fingerprints = {
            "corpus": files.meta["corpus_fingerprint"],
            "tokenizer": files.meta["tokenizer_fingerprint"],
        }
        self.dataset_tokens = int(self._tokens["train"].size)
        self.unigram_entropy = files.meta["unigram_entropy"]
        self._windows = {s: (t.size - 1) // seq_len for s, t in self._tokens.items()}
        for split, n in self._windows.items():
            if n < 1:
                raise DataError(
                    f"the {split} split of {self.corpus} has {self._tokens[split].size} tokens,"
                    f" fewer than one window of model.seq_len={seq_len}"
                )
        self._wanted = d.validation_windows

    def _gather(self, split, window):
        return self._tokens[split].gather(window * self._seq_len, self._seq_len + 1, np.int32)

    def _counted(self, split, window):
        tokens = self._gather(split, window)
        if self._by_id is not None:
            return tokens, self._by_id[tokens[:, 1:]].sum(1)
        at = window * self._seq_len + 1
        sizes = self._by_place[split].gather(at, self._seq_len, np.uint32)
        return tokens, sizes.sum(1, dtype=np.int64)

    def _training(self, step, global_batch):
        i, n = np.arange(step * global_batch, (step + 1) * global_batch), self._windows["train"]
        return permute(i % n, n, self._seed, i // n, self._order)

    def batch(self, step: int, global_batch: int, rows: slice = slice(None)) -> np.ndarray:
        """Sequences `rows` of the global batch of `step`, int32 (B, T+1)."""
        return self._gather("train", self._training(step, global_batch)[rows])

    def counted_batch(self, step: int, global_batch: int) -> tuple[np.ndarray, np.ndarray]:
        """The global batch of `step`, and the bytes of text that the T targets of each sequence
        stand for, (B,).
        """
        return self._counted("train", self._training(step, global_batch))

    def _held(self):
        n = self._windows["validation"]
        k = min(n, self._wanted)
        return np.arange(k) * n // k

    def validation(self) -> np.ndarray:
        """The validation windows, evenly spaced over the split, int32 (windows, T+1)."""
        return self._gather("validation", self._held())

    def counted_validation(self) -> tuple[np.ndarray, np.ndarray]:
        """The validation windows and the bytes of each one's targets."""
        return self._counted("validation", self._held())

    def true_nll(self, tokens):
        return None

    def epochs(self, windows: int) -> float:
        """Passes over the training windows that `windows` windows make."""
        return windows / self._windows["train"]


class Generated:
    """Windows of the synthetic source. A token counts as one byte."""

    def __init__(self, d: Data, seq_len: int, cache: str = ""):
        self.source = Synthetic(d.zipf, d.order)
        self._seq_len, self._seed, self._wanted = seq_len, d.seed, d.validation_windows
        self.vocab_size = VOCAB
        self.corpus = "synthetic"
        self.fingerprints = {"corpus": f"synthetic-1:{d.zipf!r}", "tokenizer": "synthetic"}
        self.dataset_tokens = None
        self.unigram_entropy = self.source.unigram_entropy

    def batch(self, step: int, global_batch: int, rows: slice = slice(None)) -> np.ndarray:
        i = np.arange(step * global_batch, (step + 1) * global_batch)[rows]
        return self.source.window("train", self._seed, i, self._seq_len + 1)

    def validation(self) -> np.ndarray:
        return self.source.window("validation", 0, np.arange(self._wanted), self._seq_len + 1)

    def counted_batch(self, step: int, global_batch: int) -> tuple[np.ndarray, np.ndarray]:
        return self._counted(self.batch(step, global_batch))

    def counted_validation(self) -> tuple[np.ndarray, np.ndarray]:
        return self._counted(self.validation())

    def _counted(self, tokens):
        return tokens, np.full(len(tokens), self._seq_len)

    def true_nll(self, tokens):
        """-log p of the source itself, (windows, T)."""
        return self.source.nll(tokens)

    def epochs(self, windows: int) -> float:
        return 0.0


def content(dataset) -> str:
    """What names the text and the tokenizer of a dataset, wherever their files lie."""
    return "/".join(dataset.fingerprints[k] for k in ("corpus", "tokenizer"))


def load(d: Data, seq_len: int, cache: str = ""):
    """The dataset that `d` names, as windows of `seq_len` + 1 tokens. Raises DataError."""
    if d.validation_windows < 1:
        raise DataError(f"data.validation_windows={d.validation_windows} must be at least 1")
    if d.order not in (1, 2):
        raise DataError(f"data.order={d.order}: choose 2, or 1 for that of older records")
    dataset = (Generated if d.source == "synthetic" else Text)(d, seq_len, cache)
    if d.content and d.content != content(dataset):
        raise DataError(
            f"the text or tokenizer is not the one that this was begun on: it was {d.content}, now"
            f" {content(dataset)} ({d.source}{f', data.path={d.path}' if d.path else ''}): bring it"
            " back, or give another --workdir"
        )
    return dataset
