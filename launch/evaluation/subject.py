"""A model that is evaluated: a folder in Hugging Face's format, or a run of one's own."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from data import tokenizers
from data.config import Data, DataError
from launch import config
from launch.config import ConfigError
from launch.devices import choice
from launch.evaluation import weights
from launch.evaluation.text import Reader
from launch.evaluation.weights import Weights
from launch.files import RecordError
from launch.huggingface import folder, tokenizer
from launch.runs import generate, record
from model import account
from model.config import Model

# of a model's vocabulary that its tokenizer knows, at least: tables are filled up to round sizes
# (DeepSeek-V2: 2.3%)
KNOWN = 0.9
DTYPES = ("auto", "float32", "bfloat16")
BEGINNINGS = ("auto", "always", "never")


class Subject(NamedTuple):
    """What is known of a model before its weights are read. kind: its model_type, or `isoflop`.
    trained: tokens, None where nobody says; trained_at: the context that FLOPs are counted at.
    weights(stream): how they are opened.
    """

    name: str
    path: str
    kind: str
    model: Model
    reader: Reader
    dtype: str
    trained: float | None
    trained_at: int
    tokenizer: str  # fingerprint
    data: Data | None  # of a run, what it was trained on
    weights: Callable[[bool], Weights]

    def about(self) -> dict[str, Any]:
        """The fields of its result that no text decides."""
        at = dataclasses.replace(self.model, seq_len=self.trained_at)
        per_token, trained = account.flops_per_token(at), self.trained
        return {
            "name": self.name,
            "path": self.path,
            "kind": self.kind,
            "family": config.family(self.model),
            "parameters": account.parameters(self.model),
            "model": config.to_dict(config.Run(model=self.model))["model"],
            "training_tokens": trained,
            "flops": {k: n * trained for k, n in per_token.items()} if trained else None,
            "flops_at": self.trained_at,
            "positions": self.reader.positions,
            "begins": self.reader.begins,
            "tokenizer": self.tokenizer,
            "dtype": self.dtype,
        }


def opened(s: Subject, stream: bool | None) -> Weights:
    """The weights of a subject; stream: None lets the memory that is free decide."""
    return s.weights(not weights.fits(s.model, s.dtype) if stream is None else stream)


def _dtype(asked: str, own: str = "auto") -> str:
    _one_of("dtype", asked, DTYPES)
    dtype = own if asked == "auto" else asked
    return choice.choice(jax.default_backend()).dtype if dtype == "auto" else dtype


def _one_of(name: str, asked: str, known: tuple[str, ...]) -> None:
    if asked not in known:
        raise ConfigError(f"{name}={asked!r}: choose from {', '.join(known)}")


def _positions(m: Model, context: int) -> int:
    return min(m.seq_len, context) if context else m.seq_len


def released(
    path: str,
    name: str,
    given: Data | None = None,
    context: int = 0,
    dtype: str = "auto",
    begin: str = "auto",
    trained: float | None = None,
    trained_at: int = 0,
) -> Subject:
    """A folder in Hugging Face's format. given: names its tokenizer; None: the folder does.
    context: the most tokens that the model is given; 0: those that it was made for. begin: of
    BEGINNINGS. trained_at: the context of its training; 0: all its positions. Raises ConfigError or
    DataError.
    """
    _one_of("begin", begin, BEGINNINGS)
    kind, model, _ = folder.read_config(path)
    d = _tokenizer(path, given, model)
    try:
        made = tokenizers.load(d)
    except DataError as e:
        raise DataError(f"{path}: {e}") from None
    _check_vocabulary(path, made.vocab_size, model)
    checkpoint = folder.opened(path, model)  # what is missing is said now
    begins = tokenizer.begins(path) if begin != "never" else None
    reader = Reader(made, model.vocab_size, begins, _positions(model, context))
    if begin == "always" and begins is None:
        reader = reader._replace(begins=reader.start[0])
    if begins is not None and not 0 <= begins < model.vocab_size:
        raise ConfigError(f"{path}: texts begin with id {begins}, beyond the vocabulary")
    dtype = _dtype(dtype)

    def weights_of(stream: bool) -> Weights:
        return Weights(model, checkpoint.read, dtype, stream, by_call=True)

    return Subject(
        name=name,
        path=path,
        kind=kind,
        model=model,
        reader=reader,
        dtype=dtype,
        trained=trained,
        trained_at=trained_at or model.seq_len,
        tokenizer=made.fingerprint,
        data=None,
        weights=weights_of,
    )


def _tokenizer(path: str, given: Data | None, model: Model) -> Data:
    """What names the tokenizer of a folder. Raises ConfigError."""
    plain = Data()
    if given is not None:
        if given.tokenizer.startswith("ids"):
            raise ConfigError(f"data.tokenizer={given.tokenizer} knows no text")
        return dataclasses.replace(
            plain, tokenizer=given.tokenizer, tokenizer_path=given.tokenizer_path
        )
    if found := tokenizer.beside(path):
        return dataclasses.replace(plain, **found)
    if model.vocab_size == tokenizers.TOKENIZERS[plain.tokenizer](plain).vocab_size:
        return plain  # bytes
    raise ConfigError(
        f"{path} holds no tokenizer ({', '.join(tokenizer.FILES)}): put the one that belongs to the"
        " model there, or name it by --set data.tokenizer=hf --set data.tokenizer_path=FILE"
    )


def _check_vocabulary(path: str, known: int, model: Model) -> None:
    """Raises ConfigError where a tokenizer cannot be the model's."""
    if known > model.vocab_size or known < KNOWN * model.vocab_size:
        raise ConfigError(
            f"{path}: the tokenizer has {known:,} ids, the model's vocabulary {model.vocab_size:,}:"
            " it is the tokenizer of another model"
        )


def own(
    path: str, name: str, context: int = 0, dtype: str = "auto", say: Callable = print
) -> Subject:
    """The newest state of a run of one's own. Raises RecordError or ConfigError."""
    run, step = generate.described(path, say)
    made = generate.tokenizer(run)
    if made.vocab_size > run.model.vocab_size:
        raise RecordError(f"{path}: its tokenizer has more ids than its model: it is another one")
    result = record.result(path) or {}
    trained = result.get("training_tokens") or step * run.batch * run.model.seq_len
    dtype = _dtype(dtype, run.dtype)

    def weights_of(stream: bool) -> Weights:
        variables = generate.read(path, run, step).variables

        def read(places):
            return weights.under(variables, places)

        return Weights(run.model, read, dtype, stream)

    reader = Reader(made, run.model.vocab_size, None, _positions(run.model, context))
    return Subject(
        name=name,
        path=path,
        kind="isoflop",
        model=run.model,
        reader=reader,
        dtype=dtype,
        trained=trained,
        trained_at=run.model.seq_len,
        tokenizer=made.fingerprint,
        data=run.data,
        weights=weights_of,
    )


def names(paths: list[str]) -> list[str]:
    """The shortest ends of paths that tell them apart: a, b; or x/step1000, y/step1000. Raises
    ConfigError on a path that is given twice.
    """
    whole = [os.path.abspath(p).strip(os.sep).split(os.sep) for p in paths]
    for i, parts in enumerate(whole):
        if parts in whole[:i]:
            raise ConfigError(f"{paths[i]} is given twice")
    out = []
    for parts in whole:
        others = [w for w in whole if w is not parts]
        n = 1
        while any(w[-n:] == parts[-n:] for w in others):
            n += 1
        out.append("/".join(parts[-n:]))
    return out
