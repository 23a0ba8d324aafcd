"""Token files of others, written by hand from their published layouts, are read in place."""

import dataclasses
import os
import pathlib
import struct

import numpy as np
import pytest

from data import pipeline, prepare
from data.config import Data, DataError

IDS = np.random.default_rng(0).integers(0, 50257, 4000)
IDS[100::400] = 50256
GPT2 = "ids(vocab_size=50257,separator=50256)"


def nanogpt(path):
    """nanoGPT, data/openwebtext/prepare.py: uint16, no header."""
    IDS.astype(np.uint16).tofile(path)


def llmc(path, magic=20240520, version=1, dtype=np.uint16, count=None):
    """llm.c, dev/data/data_common.py, write_datafile: 256 int32, then the ids."""
    header = np.zeros(256, np.int32)
    header[:3] = magic, version, len(IDS) if count is None else count
    path.write_bytes(header.tobytes() + IDS.astype(dtype).tobytes())


def megatron(path, code=8, dtype=np.uint16, magic=b"MMIDIDX\0\0", cut=0, sequences=4):
    """Megatron-LM, megatron/core/datasets/indexed_dataset.py, _IndexWriter: four documents."""
    lengths = np.array([1000, 500, 2000, 500], np.int32)
    pointers = np.concatenate(
        [[0], np.cumsum(lengths[:-1], dtype=np.int64) * np.dtype(dtype).itemsize]
    )
    index = magic + struct.pack("<QBQQ", 1, code, sequences, 5)
    index += lengths.tobytes() + pointers.astype(np.int64).tobytes() + np.arange(5).tobytes()
    path.with_suffix(".idx").write_bytes(index[: len(index) - cut])
    IDS.astype(dtype).tofile(path)


def npy(path):
    np.save(path, IDS.astype(np.uint32).reshape(8, 500))


FORMATS = {
    "nanogpt": ("nanogpt", "a.bin", nanogpt),
    "nanogpt, uint32": (
        "nanogpt(dtype=uint32)",
        "a.bin",
        lambda p: IDS.astype(np.uint32).tofile(p),
    ),
    "llm.c, GPT-2": ("llmc", "a.bin", llmc),
    "llm.c, Llama 3": ("llmc", "a.bin", lambda p: llmc(p, 20240801, 7, np.uint32)),
    "megatron, uint16": ("megatron", "a.bin", megatron),
    "megatron, int32": ("megatron", "a.bin", lambda p: megatron(p, 4, np.int32)),
    "npy": ("npy", "a.npy", npy),
}


@pytest.mark.parametrize("name", FORMATS)
def test_tokens_are_read_where_they_lie(tmp_path, name):
    source, file, write = FORMATS[name]
    folder = tmp_path / "theirs"
    folder.mkdir()
    write(folder / file)
    d = Data(source=source, path=str(folder), tokenizer=GPT2, validation_windows=4)
    found = prepare.prepare(d, str(tmp_path / "cache"))
    got = np.concatenate([np.asarray(found.rows[s]) for s in ("train", "validation")])
    np.testing.assert_array_equal(got, IDS)
    assert found.rows["validation"].size == 200
    assert os.listdir(found.folder) == ["index.json"]  # no copy
    assert found.meta["splits"]["train"]["documents"] == (IDS[:3800] == 50256).sum()
    ds = pipeline.load(d, 32, str(tmp_path / "cache"))
    tokens, sizes = ds.counted_batch(0, 4)
    assert not sizes.any() and ds.vocab_size == 50257
    at = np.flatnonzero((IDS[:-1] == tokens[0, 0]) & (IDS[1:] == tokens[0, 1]))[0]
    np.testing.assert_array_equal(tokens[0], IDS[at : at + 33])


def test_shards_and_files_that_are_validated_on(tmp_path):
    """Names as modded-nanogpt has them."""
    for i in range(3):
        llmc(tmp_path / f"fineweb_train_{i:06d}.bin")
    llmc(tmp_path / "fineweb_val_000000.bin")
    d = Data(
        source="llmc",
        path=str(tmp_path / "fineweb_train_*.bin"),
        validation_path=str(tmp_path / "fineweb_val_*.bin"),
        tokenizer=GPT2,
    )
    found = prepare.prepare(d, str(tmp_path / "cache"))
    assert (found.rows["train"].size, found.rows["validation"].size) == (12000, 4000)
    across = found.rows["train"].gather(np.array([3990]), 20, np.int32)[0]
    np.testing.assert_array_equal(across, np.concatenate([IDS[-10:], IDS[:10]]))


def test_documents_begin_or_end_with_the_separator_by_format(tmp_path):
    """llm.c writes it first, the others last; a mixture of both is refused where it matters."""
    here = {}
    for name, (source, file, make) in FORMATS.items():
        folder = tmp_path / str(len(here))
        folder.mkdir()
        make(folder / file)
        inside = source.removesuffix(")").split("(")
        here[name] = f"{inside[0]}({','.join([*inside[1:], f'path={folder}'])})"
        d = Data(source=source, path=str(folder), tokenizer=GPT2, documents="apart")
        for _ in range(2):  # counted now, and found counted
            ds = pipeline.load(d, 32, str(tmp_path / "cache"))
            assert (ds.separator, ds.separator_first) == (50256, source == "llmc"), name
    both = f"a={here['llm.c, GPT-2']},b={here['nanogpt']}"
    d = Data(sources=both, mixture="a=0.5,b=0.5", tokenizer=GPT2, documents="apart")
    with pytest.raises(DataError, match="llmc files begin with their separator"):
        pipeline.load(d, 32, str(tmp_path / "cache"))
    pipeline.load(dataclasses.replace(d, documents="joined"), 32, str(tmp_path / "cache"))
    both = f"a={here['nanogpt, uint32']},b={here['nanogpt']}"
    pipeline.load(dataclasses.replace(d, sources=both), 32, str(tmp_path / "cache"))


def write(path, f):
    f(path)
    return path


BAD = {
    "magic": ("llmc", GPT2, lambda p: llmc(p, 1234), "begins with 1234, not with a magic number"),
    "version": ("llmc", GPT2, lambda p: llmc(p, version=9), "version 9 of its format, 1 is read"),
    "cut": ("llmc", GPT2, lambda p: llmc(p, count=5000), "8,000 bytes of tokens where .* 10,000"),
    "odd": ("nanogpt", GPT2, lambda p: p.write_bytes(b"123"), "no multiple of 2: it is cut off"),
    "header": ("nanogpt", GPT2, llmc, "header of llm.c: set data.source=llmc"),
    "index": ("nanogpt", GPT2, megatron, "index beside it: set data.source=megatron"),
    "no index": ("megatron", GPT2, nanogpt, r"no index .*\.idx beside it"),
    "no idx": ("megatron", GPT2, lambda p: megatron(p, magic=b"MMIDXXX\0\0"), "MMIDIDX"),
    "code": ("megatron", GPT2, lambda p: megatron(p, code=7), "dtype code 7"),
    "cut idx": ("megatron", GPT2, lambda p: megatron(p, cut=80), "idx is cut off"),
    "long idx": ("megatron", GPT2, lambda p: megatron(p, sequences=2**62), "idx is cut off"),
    "above": ("nanogpt", "ids(vocab_size=50000)", nanogpt, "holds the id 502"),
    "bytes": ("nanogpt", "bytes", nanogpt, "holds the id .*data.tokenizer=bytes has 256 ids"),
    "empty": ("nanogpt", GPT2, lambda p: p.write_bytes(b""), "holds no tokens"),
    "size": ("nanogpt", "ids(size=3)", nanogpt, "ids has no field 'size'"),
    "no size": ("nanogpt", "ids", nanogpt, "vocab_size is missing"),
    "words": ("nanogpt", "ids(vocab_size=many)", nanogpt, "whole number"),
    "dtype": ("nanogpt(dtype=int8)", GPT2, nanogpt, "choose uint16 or uint32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path, case):
    source, tokenizer, make, words = BAD[case]
    path = write(tmp_path / "a.bin", make)
    with pytest.raises(DataError, match=words) as e:
        d = Data(source=source, path=str(path), tokenizer=tokenizer)
        prepare.prepare(d, str(tmp_path / "cache"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "array,words",
    [
        (np.zeros(9), "float64, not integers"),
        (np.asfortranarray(np.ones((3, 4), int)), "Fortran order"),
        (np.array([-1] * 99), "holds the id -1"),
    ],
)
def test_bad_arrays_are_one_line(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=words):
        d = Data(source="npy", path=str(tmp_path / "a.npy"), tokenizer=GPT2)
        prepare.prepare(d, str(tmp_path / "cache"))
    for content in (b"\x93NUMPY and more", b"PK\x03\x04 and more"):
        pathlib.Path(tmp_path / "b.npy").write_bytes(content)
        with pytest.raises(DataError, match="no NumPy array"):
            d = Data(source="npy", path=str(tmp_path / "b.npy"), tokenizer=GPT2)
            prepare.prepare(d, str(tmp_path / "cache"))
