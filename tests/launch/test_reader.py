"""Batches made ahead are those of the dataset, in order; each process reads its own rows."""

import threading
import time

import jax
import numpy as np
import pytest

from data import pipeline
from data.config import Data
from launch.devices import mesh as meshes
from launch.runs import reader


@pytest.fixture(scope="module")
def dataset():
    return pipeline.load(Data(source="synthetic"), 12)


def sharding(text="data=1"):
    return meshes.batch_sharding(meshes.make(meshes.parse(text)), 1)


def test_batches_are_those_of_the_dataset(dataset):
    r = reader.Reader(dataset, 4, sharding(), 3, 30, 5)
    done = 3
    for count in (1, 7, 5, 14):
        got = r.take(count)
        for i in range(count):
            tokens, sizes = dataset.counted_batch(done + i, 4)
            np.testing.assert_array_equal(got.tokens[i], tokens)
            assert got.sizes[i] == [sizes.sum()]
        done += count
    r.close()
    assert r.waited > 0


def test_what_a_source_says_is_raised_where_it_is_wanted(dataset, monkeypatch):
    def fails(step, *a, **k):
        if step == 2:
            raise ValueError("no more text")
        return pipeline.Generated.counted_batch(dataset, step, *a, **k)

    monkeypatch.setattr(dataset, "counted_batch", fails)
    r = reader.Reader(dataset, 4, sharding(), 0, 9, 2)
    r.take(2)
    with pytest.raises(ValueError, match="no more text"):
        r.take(1)
    r.close()


def test_a_reader_ends_with_its_run(dataset):
    """Also when nobody took what it has made."""
    before = threading.active_count()
    r = reader.Reader(dataset, 4, sharding(), 0, 10**9, 3)
    time.sleep(0.05)
    assert threading.active_count() == before + 1
    r.close()
    assert threading.active_count() == before


class _Device:
    def __init__(self, process):
        self.process_index = process


class _Sharding:
    """Rows over processes, each half held twice, as with tensor parallelism over hosts."""

    def devices_indices_map(self, shape):
        half = shape[1] // 2
        parts = [slice(0, half), slice(half, None)]
        return {_Device(p): (slice(None), parts[p // 2], slice(None)) for p in range(4)}


@pytest.mark.parametrize("process", range(4))
def test_each_process_reads_its_own_rows(dataset, monkeypatch, process):
    """Bytes are counted once, by the first of the processes that hold a row."""
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    rows, own = reader.held(_Sharding(), 8)
    assert rows.tolist() == ([0, 1, 2, 3] if process < 2 else [4, 5, 6, 7])
    assert own.tolist() == (rows.tolist() if process % 2 == 0 else [])
    r = object.__new__(reader.Reader)
    r._dataset, r._batch, r._rows, r._others = dataset, 8, rows, np.setdiff1d(rows, own)
    tokens, sizes = r._one(5)
    np.testing.assert_array_equal(tokens[rows], dataset.batch(5, 8)[rows])
    assert not np.delete(tokens, rows, 0).any() and sizes == [12 * len(own)]
