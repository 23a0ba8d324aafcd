"""A tokenizer made of a corpus: a sentencepiece model or a byte-level BPE, the same for the same
text.
"""

import contextlib
import io
import os
from collections.abc import Iterator

from data.config import DataError
from data.tokenizers.files import missing

LINE = 16_384  # bytes of one line of text to learn from; a longer one is cut
THREADS = 4  # of sentencepiece: another number adds its sums up in another order
END = "<|endoftext|>"


def sample(documents: Iterator[bytes], limit: int) -> tuple[list[bytes], int]:
    """The first documents, in the corpus's own order, until they hold `limit` bytes; the last one
    is cut there. And how many bytes they hold.
    """
    found, size = [], 0
    for document in documents:
        found.append(document[: limit - size])
        size += len(found[-1])
        if size >= limit:
            break
    return found, size


def _lines(documents: list[bytes]) -> Iterator[str]:
    """Lines without their ends, none longer than LINE bytes."""
    for document in documents:
        for line in document.splitlines():
            for at in range(0, len(line), LINE):
                yield line[at : at + LINE].decode("utf-8", "replace").replace("\0", "")


def sentencepiece(documents: list[bytes], vocab_size: int) -> bytes:
    """A unigram model that keeps text as it is: no normalisation, bytes for unknown characters."""
    import sentencepiece as library

    model = io.BytesIO()
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=_lines(documents),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * LINE,
            num_threads=THREADS,
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            minloglevel=2,
        )
    except Exception as e:  # RuntimeError, with the place in the library's code before the words
        said = str(e).strip().splitlines()[-1].rpartition("] ")[2].rstrip(".")
        raise DataError(
            f"no sentencepiece model of {vocab_size} pieces from this text ({said[:160]}): give"
            " another --vocab_size, or more text (--sample_bytes, data.path)"
        ) from None
    return model.getvalue()


def bpe(documents: list[bytes], vocab_size: int) -> bytes:
    """The tokenizer.json of a byte-level BPE: cut by GPT-2's pattern, nothing normalised, documents
    separated by <|endoftext|>.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise missing("tokenizers", "a tokenizer.json") from None
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END],
        show_progress=False,
    )
    t.train_from_iterator((text.decode("utf-8", "replace") for text in documents), trainer)
    return t.to_str(pretty=True).encode()


# what --kind names: how it is trained, the data.tokenizer that reads it, the fewest ids
KINDS = {"sentencepiece": (sentencepiece, "sentencepiece", 300), "bpe": (bpe, "hf", 257)}


def writable(path: str) -> None:
    """Raises DataError where a new file cannot be written; asked before minutes of training."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.lexists(path):
        raise DataError(f"{path} is there already: give another --out, or move it away")
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise DataError(f"--out={path} cannot be written: name a file in a folder that exists")


def write(path: str, content: bytes) -> None:
    """A new file, complete or not at all; never over another."""
    fresh = f"{path}.tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with open(fresh, "xb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.link(fresh, path)
    except FileExistsError:
        raise DataError(f"{path} is there already: give another --out, or move it away") from None
    except OSError as e:
        raise DataError(f"--out={path} cannot be written ({e.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(fresh)
