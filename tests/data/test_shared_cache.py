"""The token cache as several people and several machines use it."""

import os
import stat
import subprocess
import sys
import time

import pytest

from data import pack
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
    folder = pack.prepare(text, str(tmp_path / "cache"), 1).folder
    files.write_json(os.path.join(folder, "record.json"), {})

    def mode(path):
        return stat.S_IMODE(os.stat(path).st_mode)

    assert mode(folder) == 0o777 & ~mask
    assert {mode(os.path.join(folder, n)) for n in os.listdir(folder)} == {0o666 & ~mask}


def test_what_a_killed_maker_left_is_swept_away(text, tmp_path):
    """A process of this host that is no more, and what nobody touched for a day; not what others
    are making now.
    """
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    name = pack._name().split("-")
    dead = "-".join([*name[:-2], child.stdout.decode().strip(), name[-1]])
    folders = {
        "dead": dead,
        "living": pack._name(),
        "elsewhere": ".making-other-host-1-00",
        "elsewhere, old": ".making-other-host-2-00",
        "of an earlier version": ".making-abc_def",
        "of an earlier version, old": ".making-ghi_jkl",
    }
    root = tmp_path / "cache" / "tokens"
    for what, folder in folders.items():
        (root / folder).mkdir(parents=True)
        (root / folder / "train.bin").write_bytes(b"123")
        if "old" in what:
            past = time.time() - 2 * pack.ABANDONED
            os.utime(root / folder / "train.bin", (past, past))
            os.utime(root / folder, (past, past))
    made = pack.prepare(text, str(tmp_path / "cache"), 1).folder
    left = set(os.listdir(root)) - {os.path.basename(made)}
    assert left == {folders[k] for k in ("living", "elsewhere", "of an earlier version")}
