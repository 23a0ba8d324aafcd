"""Text to token ids and back, and the bytes of text that every token stands for.

An entry of TOKENIZERS takes a `Data` and returns a tokenizer; a new one is a file and a line. What
all of them have:

    vocab_size     ids are below it
    separator      the id between documents; text never becomes it, and it stands for no text
    unknown        the id that stands for any text, or None
    fingerprint    changes when the content of its file does, and not with the file's place
    slow           whether it is worth processes of its own
    token_bytes    int64, the bytes of text by id, where the id alone decides them; else None
    encode(bytes)             ids
    counted(bytes)            ids, and the bytes of text that each stands for, uint32
    counted_batch([bytes])    the same of several texts; None for the bytes where ids decide them
    decode(ids)               the bytes of text, as far as ids say them
    piece(id)                 its name in the vocabulary

The bytes add up to the text, whatever the text: an unknown piece stands for what it replaced, a
dummy prefix for nothing, a normalised piece for what it was before, and of several pieces of one
character the last one for all of it, unless ids decide. What sentencepiece drops at a text's end,
and a text of no token, stand with none: whoever appends the separator gives it the rest.
"""

import dataclasses
import os

from data import name_and_fields
from data.config import Data, DataError
from data.tokenizers import trained
from data.tokenizers.hf import load as tokenizer_json
from data.tokenizers.plain import Bytes, Ids
from data.tokenizers.sentencepiece import SentencePiece
from data.tokenizers.tiktoken import Tiktoken
from data.tokenizers.training import KINDS

TOKENIZERS = {
    "bytes": lambda d: Bytes(),
    "sentencepiece": lambda d: SentencePiece(d.tokenizer_path),
    "hf": lambda d: tokenizer_json(d.tokenizer_path),
    "tiktoken": lambda d: Tiktoken(d.tokenizer_path),
    "ids": lambda d: Ids(d.tokenizer),
}


def resolved(d: Data, root: str = "") -> Data:
    """`d` with the file of a tokenizer that is to be trained on the corpus, which is done where it
    has not been. Raises DataError.
    """
    name, fields = name_and_fields.parse(d.tokenizer, "data.tokenizer")
    return trained.find(d, root) if name in KINDS and fields else d


def load(d: Data, root: str = ""):
    """The tokenizer that `d` names; one that is still to be trained is kept in the cache `root`.
    Raises DataError.
    """
    d = resolved(d, root)
    name, fields = name_and_fields.parse(d.tokenizer, "data.tokenizer")
    if name not in TOKENIZERS or (fields and name != "ids"):
        raise DataError(
            f"unknown data.tokenizer {d.tokenizer!r}: choose from {', '.join(TOKENIZERS)}, or"
            " sentencepiece(vocab_size=N) or bpe(vocab_size=N) to train one on the corpus"
        )
    if d.tokenizer_path and name in ("bytes", "ids"):
        raise DataError(
            f"data.tokenizer_path={d.tokenizer_path} is not read by data.tokenizer={name}: set"
            " data.tokenizer too, to sentencepiece, hf or tiktoken"
        )
    path = os.path.expanduser(d.tokenizer_path)
    return TOKENIZERS[name](dataclasses.replace(d, tokenizer_path=path))
