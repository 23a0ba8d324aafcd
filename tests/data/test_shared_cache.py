"""The token cache as several people and several machines use it."""

import os
import stat
import subprocess
import sys
import time

import pytest

from data import cache, prepare
from data.config import Data
from launch import files


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 50)
    return Data(source="text", path=str(path))


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_umask_says_who_may_read(text, tmp_path, umask, mask):
    umask(mask)
    folder = prepare.prepare(text, str(tmp_path / "cache"), 1).folder
    files.write_json(os.path.join(folder, "record.json"), {})

    def mode(path):
        return stat.S_IMODE(os.stat(path).st_mode)

    assert mode(folder) == 0o777 & ~mask
    assert {mode(os.path.join(folder, n)) for n in os.listdir(folder)} == {0o666 & ~mask}


def test_what_nobody_touched_for_a_week_is_removed(text, tmp_path):
    root = tmp_path / "cache" / "tokens"
    for name in (".making-young", ".making-old"):
        (root / name).mkdir(parents=True)
        (root / name / "train-00000-000.bin").write_bytes(b"123")
    past = time.time() - 2 * cache.ABANDONED
    for path in (root / ".making-old" / "train-00000-000.bin", root / ".making-old"):
        os.utime(path, (past, past))
    made = prepare.prepare(text, str(tmp_path / "cache"), 1).folder
    assert set(os.listdir(root)) == {".making-young", os.path.basename(made)}


ASK = """
import sys
from data import prepare
from data.config import Data
print(prepare.prepare(Data(source="text", path=sys.argv[1]), sys.argv[2], 1).folder)
"""


def test_a_second_process_waits_for_the_first(text, tmp_path):
    """Both get the same folder; one of them made it."""
    root = tmp_path / "cache"
    name = prepare.prepare(text, str(tmp_path / "other"), 1).folder
    lock = root / "tokens" / f".lock-{os.path.basename(name)}"
    lock.parent.mkdir(parents=True)
    with cache.lock(str(lock), "testing"):
        argv = [sys.executable, "-c", ASK, text.path, str(root)]
        child = subprocess.Popen(argv, stdout=-1, stderr=-1, text=True)
        said = child.stderr.readline()
        assert "another process is preparing the same text" in said
        assert child.poll() is None and os.listdir(root / "tokens") == [lock.name]
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0 and err == ""
    assert os.path.basename(out.strip()) == os.path.basename(name)
    assert os.listdir(root / "tokens") == [os.path.basename(name)]
