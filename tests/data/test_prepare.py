"""Preparing is whole or not at all, and the same to the byte whoever does it."""

import concurrent.futures.process
import contextlib
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data import pipeline, prepare, shards, writing
from data.config import Data, DataError
from data.shards import Row, Shard
from data.sources import corpus, manifest, registry
from tests.conftest import ROOT

LINES = "".join(f"line {i} of some text, with words {i * i}\n" for i in range(2000))


@pytest.fixture
def small(monkeypatch):
    """Tasks, units and pieces of a few kilobytes, so that little text has many."""
    for name in ("SMALLEST", "LARGEST"):
        monkeypatch.setattr(prepare, name, 2**13)
    for name, size in (("UNIT", 2**12), ("PIECE", 2**10)):
        monkeypatch.setattr(corpus, name, size)


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(name + LINES)
    return Data(source="text", path=str(folder), validation_windows=4)


def held(folder) -> dict:
    return {n: pathlib.Path(folder, n).read_bytes() for n in sorted(os.listdir(folder))}


def test_one_document_in_many_shards_is_one_text(text, tmp_path, small):
    """Read in units and pieces, across files: the bytes are those of the files, a separator behind
    each document.
    """
    found = prepare.prepare(text, str(tmp_path / "cache"), 1)
    assert len(found.meta["splits"]["train"]["shards"]) > 10
    read = {s: np.asarray(found.rows[s]).tobytes() for s in shards.SPLITS}
    documents = [d.split(b"\0") for d in read.values()]
    assert [len(d) for d in documents] == [4, 4] and not documents[0][-1] + documents[1][-1]
    whole = sorted(a + b for a, b in zip(*documents) if a)
    assert whole == sorted(pathlib.Path(text.path, f"{n}.txt").read_bytes() for n in "abc")
    about = found.meta["splits"]["train"]
    assert about["documents"] == 3 and about["longest"] == max(map(len, documents[0]))
    assert about["bytes"] == sum(map(len, documents[0]))


def test_windows_cross_shards(text, tmp_path, small):
    found = prepare.prepare(text, str(tmp_path / "cache"), 1)
    row, flat = found.rows["train"], np.asarray(found.rows["train"])
    starts = np.random.default_rng(0).integers(0, row.size - 9000, 40)
    want = flat[starts[:, None] + np.arange(9000)]
    np.testing.assert_array_equal(row.gather(starts, 9000, np.int32), want)
    ds = pipeline.load(text, 4096, str(tmp_path / "cache"))
    assert ds.batch(3, 8).shape == (8, 4097)


@pytest.mark.parametrize("keep", [0, 1, 5])
def test_the_killed_goes_on(text, tmp_path, small, monkeypatch, keep):
    """Whatever tasks were done stay; the result is that of one who was never killed."""
    want = held(prepare.prepare(text, str(tmp_path / "whole"), 1).folder)
    run, seen = writing.run, []

    def dies(folder, task, *more):
        if len(seen) == keep:
            raise KeyboardInterrupt
        seen.append(task.number)
        return run(folder, task, *more)

    monkeypatch.setattr(writing, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(text, str(tmp_path / "cache"), 1)
    again = []
    monkeypatch.setattr(writing, "run", lambda f, t, *m: again.append(t.number) or run(f, t, *m))
    got = prepare.prepare(text, str(tmp_path / "cache"), 1).folder
    assert held(got) == want and not set(again) & set(seen) and len(seen) == keep


SCRIPT = """
import sys, time
from data import prepare, writing
from data.config import Data
from data.sources import corpus
prepare.SMALLEST = prepare.LARGEST = 2**15
prepare.ENOUGH = 0
corpus.UNIT, corpus.PIECE = 2**14, 2**12
run = writing.run
def slow(*a):  # so that there is a moment to be killed in
    time.sleep(0.01)
    return run(*a)
writing.run = slow
if __name__ == "__main__":
    d = Data(source="text", path=sys.argv[1])
    print(prepare.prepare(d, sys.argv[2], int(sys.argv[3])).folder)
"""


def test_killed_at_ten_moments(tmp_path):
    """kill -9, and typed again: byte-equal, in one process and in two."""
    path, script = tmp_path / "a.txt", tmp_path / "script.py"
    path.write_text("".join(f"{i} line of text number {i}\n" for i in range(60_000)))
    script.write_text(SCRIPT)

    def start(root, workers):
        argv = [sys.executable, str(script), str(path), str(root), str(workers)]
        env = {**os.environ, "PYTHONPATH": ROOT}
        return subprocess.Popen(argv, stdout=-1, text=True, start_new_session=True, env=env)

    want = held(start(tmp_path / "whole", 1).communicate()[0].strip())
    root = tmp_path / "cache" / "tokens"
    for moment in range(10):
        child = start(tmp_path / "cache", 1 + moment % 2)
        while child.poll() is None and len(list(root.glob("*/*.json"))) <= 4 * moment:
            time.sleep(0.001)
        time.sleep(0.003 * moment)
        assert child.poll() is None, "it was done before it could be killed"
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        assert all(name.startswith(".") for name in os.listdir(root))
    assert held(start(tmp_path / "cache", 2).communicate()[0].strip()) == want


FIRST = """
import concurrent.futures, os, time
from data import prepare
from data.config import Data
context = prepare.multiprocessing.get_context("spawn")
pool = concurrent.futures.ProcessPoolExecutor(2, context, prepare._open, ("", None, Data(), ""))
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(600)
"""


def test_no_process_outlives_the_first_one():
    """They have its stdout: it is closed when all of them have ended."""
    p = subprocess.Popen(
        [sys.executable, "-c", FIRST], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert p.stdout.readline()
        p.kill()
        p.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)


def test_a_process_that_is_killed_is_one_line(text, tmp_path, small, monkeypatch):
    """What it had done is kept."""

    def killed(*a):
        raise concurrent.futures.process.BrokenProcessPool

    monkeypatch.setattr(prepare, "_run", killed)
    with pytest.raises(DataError, match=r"was killed, .* is kept; go on with fewer: .*--workers=1"):
        prepare.prepare(text, str(tmp_path / "cache"), 2)
    assert any(n.startswith(".making") for n in os.listdir(tmp_path / "cache" / "tokens"))


def test_a_later_start_reads_the_manifest_alone(text, tmp_path, monkeypatch):
    root = str(tmp_path / "cache")
    past = time.time() - 100
    for name in os.listdir(text.path):
        os.utime(os.path.join(text.path, name), (past, past))
    before = prepare.prepare(text, root, 1)
    monkeypatch.setattr(manifest.files, "opened", lambda p: pytest.fail(f"{p} was read"))
    assert prepare.prepare(text, root, 1).folder == before.folder


def test_what_was_written_just_now_is_read_again(text, tmp_path):
    """Its time may be that of another change, in the same tick of the clock."""
    root = str(tmp_path / "cache")
    first = registry.load(text, root).fingerprint
    path = pathlib.Path(text.path, "a.txt")
    about, words = path.stat(), path.read_text()
    path.write_text(words.replace("line 7 ", "LINE 7 "))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert registry.load(text, root).fingerprint != first


def test_text_that_changes_meanwhile(text, tmp_path, monkeypatch):
    run = writing.run

    def changes(*a):
        pathlib.Path(text.path, "b.txt").write_text("other " + LINES)
        return run(*a)

    monkeypatch.setattr(writing, "run", changes)
    with pytest.raises(DataError, match=r"b.txt .*(changed|shorter)"):
        prepare.prepare(text, str(tmp_path / "cache"), 1)
    assert not [n for n in os.listdir(tmp_path / "cache" / "tokens") if n[0] != "."]


FULL = [OSError(errno.ENOSPC, "No space left on device"), OSError("99 requested and 7 written")]


@pytest.mark.parametrize("error", FULL)  # the system's, and NumPy's
def test_a_full_disk_keeps_what_is_done(text, tmp_path, small, monkeypatch, error):
    want = held(prepare.prepare(text, str(tmp_path / "whole"), 1).folder)
    write, left = writing._Writer._write, [7]

    def full(self, *a):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return write(self, *a)

    monkeypatch.setattr(writing._Writer, "_write", full)
    with pytest.raises(DataError, match="no space left .* start again"):
        prepare.prepare(text, str(tmp_path / "cache"), 1)
    left[0] = 10**9
    assert held(prepare.prepare(text, str(tmp_path / "cache"), 1).folder) == want


@pytest.mark.parametrize("damage", ["shard", "cut", "index", "key"])
def test_a_cache_that_is_damaged_says_to_remove_it(text, tmp_path, damage):
    found = pathlib.Path(prepare.prepare(text, str(tmp_path / "c"), 1).folder)
    index, shard = found / shards.INDEX, next(found.glob("train*.bin"))
    if damage == "shard":
        shard.unlink()
    elif damage == "cut":
        os.truncate(shard, 9)
    elif damage == "index":
        index.write_text("{")
    else:
        index.write_text(index.read_text().replace("unigram_entropy", "entropy"))
    with pytest.raises(DataError, match=r"not a folder of token files .*: remove it, and start"):
        prepare.prepare(text, str(tmp_path / "c"), 1)


def test_a_manifest_that_is_damaged_is_made_again(text, tmp_path):
    want = registry.load(text, str(tmp_path)).fingerprint
    for f in pathlib.Path(text.path).iterdir():
        os.utime(f, (1e9, 1e9))
    registry.load(text, str(tmp_path))
    path = next((tmp_path / "manifests").iterdir())
    known = json.loads(path.read_text())
    for keep in (0, 1, 2):
        path.write_text(json.dumps({p: kept[:keep] for p, kept in known.items()}))
        assert registry.load(text, str(tmp_path)).fingerprint == want


def test_a_cache_that_is_read_only(text, tmp_path, monkeypatch):
    root = tmp_path / "cache"
    made = prepare.prepare(text, str(root), 1).folder

    def refuse(*a, **k):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("makedirs", "mkdir", "replace", "rename", "remove"):
        monkeypatch.setattr(os, name, refuse)
    assert prepare.prepare(text, str(root), 1).folder == made
    pathlib.Path(text.path, "d.txt").write_text("one more\n" * 100)
    with pytest.raises(DataError, match="cannot write the token cache .* ISOFLOP_CACHE"):
        prepare.prepare(text, str(root), 1)


def test_ten_terabytes_are_one_lookup_and_one_gather(tmp_path, monkeypatch):
    """5,000 sparse shards of 2 GiB: any step is found at once, and no more files are held open."""
    path, n = tmp_path / "sparse.bin", 2**30  # uint16: 2 GiB
    with open(path, "wb") as f:
        f.truncate(2 * n)
        f.seek(2 * n - 2)
        f.write(b"\x07\x00")
    row = Row([Shard(str(path), n, "uint16") for _ in range(5000)])
    assert row.size == 5000 * n > 5e12
    across = row.gather(np.array([n - 3, 4321 * n - 2, 7]), 6, np.int32)
    np.testing.assert_array_equal(across, [[0, 0, 7, 0, 0, 0], [0, 7, 0, 0, 0, 0], [0] * 6])
    windows = (row.size - 1) // 1024
    started = time.process_time()
    for step in range(20):
        i = np.arange(step * 10**6, step * 10**6 + 32)
        at = pipeline.permute(i % windows, windows, 0, i // windows)
        assert row.gather(at * 1024, 1025, np.int32).shape == (32, 1025)
    assert (time.process_time() - started) / 20 < 0.05
    assert len(row._open) <= shards.OPEN


@pytest.mark.parametrize("size", [0, 1, 2**17 - 1, 2**17, 2**17 + 1])
@pytest.mark.parametrize("top", [1, 7, 256])
def test_bytes_are_counted_by_value(size, top):
    ids = np.random.default_rng(size).integers(0, top, size, np.uint8)
    ids[-1:] = top - 1  # of an odd number, the last one counts too
    assert writing.counted(ids, top).tolist() == [int((ids == v).sum()) for v in range(top)]


@pytest.mark.parametrize("lines", [1, 8, 4096])
def test_a_long_text_is_cut_before_the_last_line_that_is_not_indented(monkeypatch, lines):
    monkeypatch.setattr(corpus, "PIECE", 100)
    monkeypatch.setattr(corpus, "LINES", lines)
    last = "x" * 60 + "\nline\n  indented\n\nmore of it"
    assert corpus.cut((last + "\n" + " " * 60).encode()) == last.index("more")
    assert corpus.cut(("x" * 40 + "\nno line ends in the second half" + "y" * 60).encode()) == 67
