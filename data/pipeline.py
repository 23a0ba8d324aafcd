"""Batches addressed by (seed, step): no iterator, no state, nothing to save for a resume.

A source is cut into windows of T+1 tokens at multiples of T. They are visited in a random order
that is a new permutation every epoch (data/order.py): the i-th window is computed, not looked up.
Of several sources, the i-th window's is looked up in a pattern (data/mixture.py). A batch is one
gather a source.
"""

import numpy as np

from data import mixture, prepare, tokenizers
from data.config import Data, DataError
from data.order import permute
from data.synthetic import VOCAB, Synthetic

SUBSET = 2**31  # the seed that unique_tokens draws its windows by; no data.seed is as large


class Windows:
    """The windows of one prepared source. unique_tokens: how many of its tokens are trained on, at
    random places that are the same for every seed; 0: all.
    """

    def __init__(self, d: Data, seq_len: int, tokenizer, cache: str, unique_tokens: int = 0):
        self.files = prepare.prepare(d, cache, tokenizer=tokenizer)
        self._seq_len, self._seed, self._order = seq_len, d.seed, d.order
        self._by_id = tokenizer.token_bytes
        self.all = {s: (row.size - 1) // seq_len for s, row in self.files.rows.items()}
        for split, n in self.all.items():
            if n < 1:
                raise DataError(
                    f"the {split} split of {self.files.meta['corpus']} has"
                    f" {self.files.rows[split].size} tokens, fewer than one window of"
                    f" model.seq_len={seq_len}"
                )
        self.count = unique_tokens // seq_len if unique_tokens else self.all["train"]
        if not 1 <= self.count <= self.all["train"]:
            raise DataError(
                f"data.unique_tokens asks for {unique_tokens} tokens of"
                f" {self.files.meta['corpus']}, which has {self.all['train']} windows of"
                f" model.seq_len={seq_len} to train on: give {seq_len} to"
                f" {self.all['train'] * seq_len}"
            )
        self.tokens = self.count * seq_len if unique_tokens else self.files.rows["train"].size

    def training(self, i: np.ndarray) -> np.ndarray:
        """The window that is read as the `i`-th."""
        window = permute(i % self.count, self.count, self._seed, i // self.count, self._order)
        n = self.all["train"]
        return window if self.count == n else permute(window, n, SUBSET, np.zeros_like(window))

    def held_out(self, wanted: int) -> np.ndarray:
        """`wanted` windows of validation, evenly spaced."""
        n = self.all["validation"]
        k = min(n, wanted)
        return np.arange(k) * n // k

    def gather(self, split: str, window: np.ndarray) -> np.ndarray:
        """Tokens, int32 (windows, T+1)."""
        at = window * self._seq_len
        return self.files.rows[split].gather(at, self._seq_len + 1, np.int32)

    def counted(self, split: str, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, and the bytes of text that the T targets of each window stand for."""
        tokens = self.gather(split, window)
        if self._by_id is not None:
            return tokens, self._by_id[tokens[:, 1:]].sum(1)
        at = window * self._seq_len + 1
        sizes = self.files.sizes[split].gather(at, self._seq_len, np.uint32)
        return tokens, sizes.sum(1, dtype=np.int64)


class Text:
    """Windows of one source, or of a mixture of several: `names`."""

    def __init__(self, d: Data, seq_len: int, cache: str = ""):
        tokenizer = tokenizers.load(d, cache)
        self.vocab_size, self.separator = tokenizer.vocab_size, int(tokenizer.separator)
        if d.documents == "apart" and self.separator < 0:
            raise DataError(
                f"data.documents=apart: data.tokenizer={d.tokenizer} names no id between documents:"
                " set data.tokenizer='ids(vocab_size=N,separator=ID)'"
            )
        self._seq_len, self._wanted = seq_len, d.validation_windows
        self._mixture = mixture_of(d)
        self.names = self._mixture.names if self._mixture else ()
        parts = mixture.sources(d) if self._mixture else {"": d}
        self._parts = []
        for k, part in enumerate(parts.values()):
            share = self._mixture.counts[k] / mixture.PERIOD if self._mixture else 1
            # none would mean all of them
            unique = max(int(share > 0), round(d.unique_tokens * share)) if d.unique_tokens else 0
            self._parts.append(Windows(part, seq_len, tokenizer, cache, unique))
        metas = [p.files.meta for p in self._parts]
        self.separator_first = _separator_first(d, self.separator, metas)
        self.corpus = self._joined(m["corpus"] for m in metas)
        self.fingerprints = {
            "corpus": self._joined(m["corpus_fingerprint"] for m in metas),
            "tokenizer": tokenizer.fingerprint,
        }
        self.dataset_tokens = sum(p.tokens for p in self._parts)
        # of a mixture, that of one who knows which source a token is of
        shares = self._mixture.counts / mixture.PERIOD if self._mixture else np.ones(1)
        self.unigram_entropy = float(shares @ [m["unigram_entropy"] for m in metas])

    def _joined(self, values) -> str:
        pairs = zip(self.names, values, strict=True) if self.names else ((None, v) for v in values)
        return ",".join(f"{name}:{v}" if name else v for name, v in pairs)

    def _read(self, step: int, global_batch: int, rows: slice, counted: bool):
        i = np.arange(step * global_batch, (step + 1) * global_batch)[rows]
        if not self._mixture:
            windows = self._parts[0]
            return (windows.counted if counted else windows.gather)("train", windows.training(i))
        source, own = self._mixture.place(i)
        tokens = np.empty((len(i), self._seq_len + 1), np.int32)
        sizes = np.zeros(len(i), np.int64)
        for k in np.unique(source):
            here, windows = source == k, self._parts[k]
            found = windows.training(own[here])
            if counted:
                tokens[here], sizes[here] = windows.counted("train", found)
            else:
                tokens[here] = windows.gather("train", found)
        return (tokens, sizes) if counted else tokens

    def batch(self, step: int, global_batch: int, rows: slice = slice(None)) -> np.ndarray:
        """Sequences `rows` of the global batch of `step`, int32 (B, T+1)."""
        return self._read(step, global_batch, rows, False)

    def counted_batch(
        self, step: int, global_batch: int, rows: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same, and the bytes of text that the T targets of each sequence stand for, (B,)."""
        return self._read(step, global_batch, rows, True)

    def by_source(self, step: int, global_batch: int, sizes: np.ndarray) -> np.ndarray:
        """The bytes of a batch, `sizes` (B,), summed over the sequences of each source."""
        if not self._mixture:
            return sizes.sum(keepdims=True)
        source, _ = self._mixture.place(np.arange(step * global_batch, (step + 1) * global_batch))
        return np.bincount(source, sizes, len(self.names)).astype(np.int64)

    def validation(self) -> np.ndarray:
        """The validation windows, int32 (windows, T+1): of each source as many, evenly spaced."""
        return self.counted_validation()[0]

    def counted_validation(self) -> tuple[np.ndarray, np.ndarray]:
        """The validation windows and the bytes of each one's targets."""
        found = [p.counted("validation", p.held_out(n)) for p, n in self._held_out()]
        return np.concatenate([t for t, _ in found]), np.concatenate([b for _, b in found])

    def validation_sources(self) -> np.ndarray:
        """The source of each validation window, as a place in `names`."""
        return np.repeat(
            np.arange(len(self._parts)), [len(p.held_out(n)) for p, n in self._held_out()]
        )

    def _held_out(self):
        return [(p, max(1, self._wanted // len(self._parts))) for p in self._parts]

    def true_nll(self, tokens):
        return None

    def epochs(self, windows: int) -> float:
        """Passes over the training windows that `windows` windows make; of a mixture, over that
        source of which it makes most.
        """
        return max(self.source_epochs(windows))

    def source_windows(self, windows: int) -> list[int]:
        """How many of the first `windows` training windows are of each source."""
        return self._mixture.taken(windows).tolist() if self._mixture else [windows]

    def source_epochs(self, windows: int) -> list[float]:
        taken = self.source_windows(windows)
        return [n / p.count for n, p in zip(taken, self._parts, strict=True)]

    def source_tokens(self) -> list[int]:
        """The tokens of each source that are trained on."""
        return [p.tokens for p in self._parts]


def mixture_of(d: Data) -> mixture.Mixture | None:
    """The mixture that `d` names; None where it names one source. Raises DataError."""
    if bool(d.sources) != bool(d.mixture):
        raise DataError(
            "data.sources and data.mixture go together: the one names, the other weighs"
        )
    if d.mixture and (d.path or d.validation_path):
        raise DataError(
            "data.path does not belong to a mixture: give each source of data.sources its own,"
            " web=jsonl(path=...)"
        )
    return mixture.parse(d) if d.mixture else None


def _separator_first(d: Data, separator: int, metas: list[dict]) -> bool:
    """Whether documents begin with the separator, not end. Raises DataError where they are kept
    apart and nobody can.
    """
    first = {bool(m.get("separator_first")) for m in metas}
    if d.documents == "apart":
        if len(first) > 1:
            raise DataError(
                "data.documents=apart: documents of llmc files begin with their separator, those of"
                " the other sources end with it: mix the one or the other"
            )
        for m in metas:
            if not any(split.get("documents", 1) for split in m["splits"].values()):
                raise DataError(
                    f"data.documents=apart: the separator {separator} stands nowhere in"
                    f" {m['corpus']}: name the id that ends its documents, or set"
                    " data.documents=joined"
                )
    return first == {True}


class Generated:
    """Windows of the synthetic source. A token counts as one byte."""

    names = ()
    separator, separator_first = -1, False

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

    def counted_batch(
        self, step: int, global_batch: int, rows: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._counted(self.batch(step, global_batch, rows))

    def by_source(self, step: int, global_batch: int, sizes: np.ndarray) -> np.ndarray:
        return sizes.sum(keepdims=True)

    def counted_validation(self) -> tuple[np.ndarray, np.ndarray]:
        return self._counted(self.validation())

    def validation_sources(self) -> np.ndarray:
        return np.zeros(self._wanted, np.int64)

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
    check(d)
    dataset = (Generated if d.source == "synthetic" else Text)(d, seq_len, cache)
    if d.content and d.content != content(dataset):
        raise DataError(
            f"the text or tokenizer is not the one that this was begun on: it was {d.content}, now"
            f" {content(dataset)} ({d.source}{f', data.path={d.path}' if d.path else ''}): bring it"
            " back, or give another --workdir"
        )
    return dataset


def check(d: Data) -> None:
    """Raises DataError on what no text can mend."""
    if d.validation_windows < 1:
        raise DataError(f"data.validation_windows={d.validation_windows} must be at least 1")
    if d.order not in (1, 2):
        raise DataError(f"data.order={d.order}: choose 2, or 1 for that of older records")
    if d.documents not in ("joined", "apart"):
        raise DataError(f"data.documents={d.documents!r}: choose joined or apart")
    if d.unique_tokens < 0:
        raise DataError(f"data.unique_tokens={d.unique_tokens} cannot be negative")
    if d.source == "synthetic" and (d.unique_tokens or d.documents == "apart" or d.mixture):
        raise DataError(
            "data.source=synthetic has no end and no documents: unique_tokens, documents=apart and"
            " mixture are for text"
        )
    if d.source == "synthetic" and (d.path or d.validation_path):
        raise DataError(
            "data.path is not read by data.source=synthetic: set data.source to text, jsonl,"
            " parquet or another that reads files"
        )
