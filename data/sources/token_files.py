"""Token files of other trainers, read where they lie: nanoGPT, llm.c and modded-nanogpt, Megatron,
NumPy.

They do not say which tokenizer made them: data.tokenizer does. The last twentieth of the tokens is
validation, where data.validation_path names no other files.
"""

import dataclasses
import os
import struct
from typing import Any, ClassVar

import numpy as np

from data.config import DataError
from data.shards import Shard
from data.sources import corpus, files
from data.sources.corpus import Source


@dataclasses.dataclass(frozen=True)
class TokenFiles(Source):
    """A new format says `endings` and `shard`, and where a document's separator is its first token,
    `separator_first`.
    """

    separator_first: ClassVar[bool] = False

    def shard(self, path: str, size: int) -> Shard:
        """Where the tokens stand in a file of `size` bytes. Raises DataError."""
        raise NotImplementedError

    def units(self, f: files.File, split: str) -> list[corpus.Unit]:
        raise DataError(
            f"{f.path} holds ids, which are no text to learn a tokenizer from: name a source of"
            " text"
        )

    def shards(self, order: dict[str, list[files.File]]) -> dict[str, list[Shard]]:
        """The shards of both splits. Raises DataError."""
        found = {}
        for split, here in order.items():
            found[split] = []
            for f in here:
                if files.remote(f.path):
                    raise DataError(
                        f"{f.path} is a URL: token files are read where they lie, copy them near"
                    )
                found[split].append(self.shard(f.path, f.size))
        return found if "train" in found else _parted(found[""])


def _parted(shards: list[Shard]) -> dict[str, list[Shard]]:
    """The last twentieth of the tokens is validation."""
    total = sum(s.tokens for s in shards)
    left = total - total // corpus.VALIDATION_SHARE
    out: dict[str, list[Shard]] = {"train": [], "validation": []}
    for s in shards:
        n = min(left, s.tokens)
        behind = s.offset + n * np.dtype(s.dtype).itemsize
        if n:
            out["train"].append(s._replace(tokens=n))
        if n < s.tokens:
            out["validation"].append(s._replace(tokens=s.tokens - n, offset=behind))
        left -= n
    return out


def _whole(path: str, held: int, tokens: int, dtype: str, offset: int) -> Shard:
    """Raises DataError unless `tokens` fill what is behind the header."""
    wanted = tokens * np.dtype(dtype).itemsize
    if held - offset != wanted or not tokens:
        raise DataError(
            f"{path} has {max(0, held - offset):,} bytes of tokens where its header says"
            f" {wanted:,}: it is cut off or damaged, copy it again"
            if tokens
            else f"{path} holds no tokens"
        )
    return Shard(path, tokens, dtype, offset)


@dataclasses.dataclass(frozen=True)
class NanoGPT(TokenFiles):
    """Ids without a header, as nanoGPT's data/*/prepare.py write them (github.com/karpathy/nanoGPT:
    uint16, documents end with the tokenizer's <|endoftext|>).
    """

    dtype: str = "uint16"

    kind: ClassVar[str] = "nanogpt"
    endings: ClassVar[tuple[str, ...]] = (".bin",)

    def shard(self, path: str, size: int) -> Shard:
        if self.dtype not in ("uint16", "uint32"):
            raise DataError(f"nanogpt(dtype={self.dtype}): choose uint16 or uint32")
        with files.opened(path) as f:
            start = f.read(8)
        if len(start) >= 4 and struct.unpack("<i", start[:4])[0] in LLMC:
            raise DataError(f"{path} has the header of llm.c: set data.source=llmc")
        if os.path.exists(path.removesuffix(".bin") + ".idx"):
            raise DataError(f"{path} has an index beside it: set data.source=megatron")
        found = files.kind(path)
        if found not in ("binary", "text"):
            raise DataError(f"{path} is {found}, not ids without a header")
        width = np.dtype(self.dtype).itemsize
        if size % width:
            raise DataError(f"{path} has {size:,} bytes, no multiple of {width}: it is cut off")
        return _whole(path, size, size // width, self.dtype, 0)


# magic number -> (version, dtype), of llm.c's dev/data/data_common.py
LLMC = {20240520: (1, "uint16"), 20240801: (7, "uint32")}


@dataclasses.dataclass(frozen=True)
class Llmc(TokenFiles):
    """Ids behind a header of 256 int32: magic number, version, count (github.com/karpathy/llm.c,
    dev/data/data_common.py; modded-nanogpt has the same). GPT-2's ids are uint16, Llama 3's uint32.
    Documents begin with <|endoftext|>, or Llama 3's <|begin_of_text|> (dev/data/fineweb.py and its
    neighbours; modded-nanogpt's data/fineweb.py).
    """

    separator_first: ClassVar[bool] = True

    kind: ClassVar[str] = "llmc"
    endings: ClassVar[tuple[str, ...]] = (".bin",)

    def shard(self, path: str, size: int) -> Shard:
        with files.opened(path) as f:
            header = np.frombuffer(f.read(1024), "<i4")
        if header.size < 256 or int(header[0]) not in LLMC:
            magic = int(header[0]) if header.size else "nothing"
            raise DataError(
                f"{path} begins with {magic}, not with a magic number of llm.c"
                f" ({', '.join(map(str, LLMC))}): ids without a header are data.source=nanogpt"
            )
        version, dtype = LLMC[int(header[0])]
        if int(header[1]) != version:
            raise DataError(f"{path} has version {header[1]} of its format, {version} is read")
        return _whole(path, size, int(header[2]), dtype, 1024)


# of Megatron-LM's megatron/core/datasets/indexed_dataset.py, those that hold ids
_MEGATRON = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
_MAGIC = b"MMIDIDX\0\0"


@dataclasses.dataclass(frozen=True)
class Megatron(TokenFiles):
    """A .bin of ids with an .idx beside it (github.com/NVIDIA/Megatron-LM,
    megatron/core/datasets/indexed_dataset.py): magic, version 1, code of the dtype, counts of
    sequences and documents, then lengths, byte pointers and documents' first sequences.
    """

    kind: ClassVar[str] = "megatron"
    endings: ClassVar[tuple[str, ...]] = (".bin",)

    def shard(self, path: str, size: int) -> Shard:
        index = path.removesuffix(".bin") + ".idx"
        if not path.endswith(".bin") or not os.path.exists(index):
            raise DataError(
                f"{path} has no index {index} beside it: Megatron writes a .bin and an"
                " .idx, give the .bin"
            )
        with files.opened(index) as f:
            start = f.read(len(_MAGIC) + 25)
            if start[: len(_MAGIC)] != _MAGIC or len(start) < len(_MAGIC) + 25:
                raise DataError(f"{index} does not begin like an index of Megatron (MMIDIDX)")
            version, code, sequences, _ = struct.unpack("<QBQQ", start[len(_MAGIC) :])
            if version != 1 or code not in _MEGATRON:
                raise DataError(
                    f"{index} has version {version} and dtype code {code}: version 1 with ids"
                    f" ({', '.join(f'{k} {v}' for k, v in _MEGATRON.items())}) is read"
                )
            held = f.seek(0, os.SEEK_END) - f.seek(len(_MAGIC) + 25)
            whole = held >= 4 * sequences  # of a damaged one the count may be any
            lengths = np.frombuffer(f.read(4 * sequences) if whole else b"", "<i4")
        if not whole:
            raise DataError(f"{index} is cut off: copy it again")
        return _whole(path, size, int(lengths.sum(dtype=np.int64)), _MEGATRON[code], 0)


@dataclasses.dataclass(frozen=True)
class Npy(TokenFiles):
    """A NumPy array of integers, in C order."""

    kind: ClassVar[str] = "npy"
    endings: ClassVar[tuple[str, ...]] = (".npy",)

    def shard(self, path: str, size: int) -> Shard:
        found: Any
        if files.kind(path) == "a zip archive":  # np.load would take it for arrays by name
            raise DataError(f"{path} is no NumPy array: save one array, by np.save")
        try:
            with files.opened(path) as f:
                found = np.load(path, mmap_mode="r", allow_pickle=False) if f.read(1) else None
        except (ValueError, OSError, EOFError) as e:
            raise DataError(f"{path} is no NumPy array that can be read ({e})") from None
        if found is None or not isinstance(found, np.memmap) or found.dtype.kind not in "iu":
            what = "nothing" if found is None else getattr(found, "dtype", type(found).__name__)
            raise DataError(f"{path} holds {what}, not integers")
        if not found.flags.c_contiguous:
            raise DataError(f"{path} is in Fortran order: save np.ascontiguousarray of it")
        return _whole(path, size, found.size, found.dtype.str, found.offset)
