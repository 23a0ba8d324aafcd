"""Batches, made ahead by a thread, so that reading does not hold the device up; each process reads
the rows that its own devices hold.
"""

import queue
import threading
import time
from typing import NamedTuple

import jax
import numpy as np

AHEAD_BYTES = 2**26  # of tokens that wait to be taken, at most; one batch may be larger


class Batches(NamedTuple):
    """tokens: int32 (steps, B, T+1), of which the rows of other processes are zeros. sizes: bytes
    of text of each step, by source, (steps, S).
    """

    tokens: np.ndarray
    sizes: np.ndarray


def held(sharding, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a batch that the devices of this process hold, and those among them that no
    process with a lower number holds too.
    """
    first = np.full(rows, jax.process_count())
    mine = np.zeros(rows, bool)
    for device, index in sharding.devices_indices_map((1, rows, 1)).items():
        first[index[1]] = np.minimum(first[index[1]], device.process_index)
        mine[index[1]] |= device.process_index == jax.process_index()
    return np.flatnonzero(mine), np.flatnonzero(first == jax.process_index())


class Reader:
    """Steps `start` to `total` of `dataset`, in order. `waited`: seconds that `take` has waited."""

    def __init__(self, dataset, batch: int, sharding, start: int, total: int, ahead: int):
        self._dataset, self._batch = dataset, batch
        self._rows, own = held(sharding, batch)
        self._others = np.setdiff1d(self._rows, own)  # whose bytes another process counts
        row = dataset.batch(0, batch, slice(0, 1)).nbytes
        self._queue: queue.Queue = queue.Queue(
            max(2, min(2 * ahead, AHEAD_BYTES // max(1, row * batch)))
        )
        self._ended, self.waited = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._read, args=(start, total), daemon=True)
        self._thread.start()

    def _read(self, start: int, total: int) -> None:
        try:
            for step in range(start, total):
                self._put(self._one(step))
                if self._ended.is_set():
                    return
        except Exception as e:  # it is raised where the batch is wanted
            self._put(e)

    def _put(self, item) -> None:
        while not self._ended.is_set():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue

    def _one(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        read, found = self._dataset.counted_batch(step, self._batch, self._rows)
        tokens, sizes = read, np.zeros(self._batch, np.int64)
        if len(self._rows) < self._batch:
            tokens = np.zeros((self._batch, read.shape[1]), np.int32)
            tokens[self._rows] = read
        sizes[self._rows] = found
        sizes[self._others] = 0
        return tokens, self._dataset.by_source(step, self._batch, sizes)

    def take(self, count: int) -> Batches:
        """The next `count` steps. Every process calls it alike: their bytes are added up."""
        read = []
        for _ in range(count):
            started = time.perf_counter()
            item = self._queue.get()
            self.waited += time.perf_counter() - started
            if isinstance(item, Exception):
                raise item
            read.append(item)
        sizes = np.stack([s for _, s in read])
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            sizes = np.asarray(multihost_utils.process_allgather(sizes)).sum(0)
        return Batches(np.stack([t for t, _ in read]), sizes)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
