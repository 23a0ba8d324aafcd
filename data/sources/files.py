"""Files of a corpus, local or behind a URL: found, opened, told apart by their first bytes."""

import contextlib
import glob
import gzip
import io
import os
import stat as stats
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from data.config import DataError

FIRST = 65536  # bytes that a file's kind is seen from
OUT = 2**17  # bytes of a .zst that are unpacked at a time
WINDOW = 2**31  # bytes that a .zst may look back, the format's bound: --long=31

# what a file begins with, and how a person calls it
_KINDS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
    (b"\x93NUMPY", "npy"),
    (b"MMIDIDX\0\0", "a Megatron index"),
    (b"%PDF", "PDF"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# the source that reads each kind, where there is one
_READS = {
    "parquet": "data.source=parquet",
    "arrow": "data.source=arrow",
    "npy": "data.source=npy",
    "JSON lines": "data.source=jsonl",
    "text": "data.source=text",
    "gzip": "data.source=jsonl if it holds JSON lines, else unpack it (gunzip)",
    "zstandard": "data.source=jsonl if it holds JSON lines, else unpack it (unzstd)",
    "a Megatron index": "data.source=megatron with the .bin beside it",
    "UTF-16": "convert it: iconv -f UTF-16 -t UTF-8",
    "binary": "this is no text; a header with a magic number is read by data.source=llmc",
}


class File(NamedTuple):
    """A file as it was found: `stamp` changes when it is written again."""

    path: str
    size: int
    stamp: str


def remote(path: str) -> bool:
    """Whether `path` is a URL, such as s3://bucket/name."""
    return "://" in path


def _filesystem(path: str):
    """The fsspec filesystem of a URL. Raises DataError."""
    try:
        import fsspec
    except ImportError:
        raise DataError(
            f"{path} is a URL, which needs fsspec: pip install 'isoflop[remote]'"
        ) from None
    try:
        return fsspec.core.url_to_fs(path)[0]
    except (ImportError, ValueError) as e:
        raise DataError(
            f"{path} cannot be opened ({str(e).strip().splitlines()[0]}): the extra"
            " isoflop[remote] has http, s3 and gs"
        ) from None


def opened(path: str) -> Any:
    """A binary file that can seek. Raises DataError."""
    try:
        if remote(path):
            return _filesystem(path).open(path, "rb")
        return open(path, "rb", buffering=2**20)
    except Exception as e:
        if not remote(path) and not isinstance(e, OSError):
            raise
        raise unreadable(path, e) from None


def unreadable(path: str, e: Exception) -> DataError:
    """What to say of a file that cannot be read."""
    why = getattr(e, "strerror", None) or str(e).strip().split("\n")[0] or type(e).__name__
    return DataError(f"cannot read {path}: {why}")


@contextlib.contextmanager
def unpacked(path: str) -> Iterator[Any]:
    """The bytes of a file, decompressed where it begins like .gz or .zst. Raises DataError, also of
    a file that is damaged.
    """
    with opened(path) as f:
        start = _start(f, 4)
        f.seek(0)
        if start[:2] == b"\x1f\x8b":
            reader: Any = io.BufferedReader(gzip.GzipFile(fileobj=f), 2**20)
        elif start == b"\x28\xb5\x2f\xfd":
            reader = io.BufferedReader(_Zstandard(f, _zstandard(path)), 2**16)
        else:
            reader = f if isinstance(f, io.BufferedReader) else io.BufferedReader(f, 2**20)
        try:
            yield reader
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise truncated(path, e) from None
        except OSError as e:
            raise unreadable(path, e) from None


def _start(f, size: int) -> bytes:
    """The first bytes of a file, behind the frames that a .zst may begin with and that hold no
    content (RFC 8878, section 3.1.2): pzstd writes one.
    """
    while len(head := f.read(8)) == 8 and head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:
        f.seek(int.from_bytes(head[4:], "little"), os.SEEK_CUR)
    return (head + f.read(max(0, size - 8)))[:size]


class _Zstandard(io.RawIOBase):
    """Frames one after the other. The library's own reader takes a file that is cut off for one
    that ends (zstandard 0.25).
    """

    def __init__(self, f, library):
        self._f, self._library, self._frame = f, library, None
        self._packed, self._held, self._at = b"", b"", 0
        self._take = 2**12  # bytes to unpack at a time: so many that about OUT come out of them

    def readable(self) -> bool:
        return True

    def readinto(self, out) -> int:
        while self._at == len(self._held):
            block = self._packed or self._f.read(self._take)
            if not block:
                if self._frame:
                    raise EOFError("the last frame is not complete")
                return 0
            self._frame = self._frame or self._library.ZstdDecompressor(
                max_window_size=WINDOW
            ).decompressobj(write_size=OUT)
            try:
                self._held, self._at = self._frame.decompress(block), 0
            except self._library.ZstdError as e:
                raise EOFError(str(e)) from None
            self._packed = self._frame.unused_data if self._frame.eof else b""
            if self._held:
                self._take = min(2**16, max(64, self._take * OUT // len(self._held)))
            self._frame = None if self._frame.eof else self._frame
        n = min(len(out), len(self._held) - self._at)
        out[:n] = memoryview(self._held)[self._at : self._at + n]
        self._at += n
        return n


def _zstandard(path: str) -> Any:
    try:
        import zstandard

        return zstandard
    except ImportError:
        raise DataError(f"{path} is zstandard: pip install 'isoflop[corpora]' reads it") from None


def truncated(path: str, e: Exception) -> DataError:
    """What to say of a compressed file that ends early or is damaged."""
    return DataError(
        f"{path} is damaged or cut off ({str(e).strip().splitlines()[0] or type(e).__name__}):"
        " copy it again"
    )


def kind(path: str) -> str:
    """What a file is, by its first bytes: `text`, `JSON lines`, `parquet`, `gzip`, `binary` ..."""
    with opened(path) as f:
        start = _start(f, FIRST)
    for magic, name in _KINDS:
        if start.startswith(magic):
            return name
    if b"\0" in start:
        return "binary"
    bare = path.lower().removesuffix(".gz").removesuffix(".zst")
    if bare.endswith((".jsonl", ".ndjson")) and start.lstrip()[:1] == b"{":
        return "JSON lines"
    return "text"


def expect(path: str, source: str, *kinds: str) -> None:
    """Raises DataError unless the file is of one of `kinds`."""
    found = kind(path)
    if found not in kinds:
        with opened(path) as f:
            if not f.read(1):
                return
        raise DataError(
            f"{path} is {found if found != 'JSON lines' else 'JSON lines, not plain text'}, which"
            f" data.source={source} does not read: {_READS.get(found, 'convert it to UTF-8 text')}"
        )


def find(text: str, endings: tuple[str, ...], what: str = "data.path") -> list[File]:
    """The files that `text` names: files, globs, and folders, of which those with one of `endings`
    are taken, comma-separated. Each once, sorted by path. Raises DataError.
    """
    names = [p.strip() for p in text.split(",") if p.strip()]
    found: dict[str, File] = {}
    for name in names:
        here = _remote(name, endings) if remote(name) else _local(name, endings)
        if not here:
            ending = f" that ends in {', '.join(endings)}" if endings else ""
            raise DataError(f"{what}={name!r} matches no file{ending}")
        found.update((f.path, f) for f in here)
    return [found[p] for p in sorted(found)]


def _local(name: str, endings: tuple[str, ...]) -> list[File]:
    path = os.path.abspath(os.path.expanduser(name))
    if os.path.isdir(path):
        paths = _under(path, endings)
    elif os.path.lexists(path):
        paths = [path]
    else:
        paths = [p for p in _matching(path) if not os.path.isdir(p)]
    return [stat(p) for p in paths]


def _matching(pattern: str) -> list[str]:
    """What a glob names. ** goes behind no link: a circle of them would have no end."""
    head, deep, tail = f"{pattern}{os.sep}".partition(f"{os.sep}**{os.sep}")
    if not deep:
        return glob.glob(pattern)
    out = []
    for top in glob.glob(head or os.sep):
        for place, folders, _ in os.walk(top, onerror=_stop):
            folders[:] = [f for f in folders if not f.startswith(".")]
            out += _matching(os.path.join(glob.escape(place), tail.rstrip(os.sep) or "*"))
    return out


def _under(folder: str, endings: tuple[str, ...]) -> list[str]:
    """Files below a folder; hidden ones, and folders behind links, are left out."""
    out = []
    for place, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = [f for f in folders if not f.startswith(".")]
        out += [
            os.path.join(place, n)
            for n in names
            if not n.startswith(".") and (not endings or n.lower().endswith(endings))
        ]
    return out


def _stop(e: OSError) -> None:
    raise DataError(f"cannot read {e.filename}: {e.strerror}")


def stat(path: str) -> File:
    """A local file as it is now. Raises DataError."""
    try:
        s = os.stat(path)
    except OSError as e:
        raise unreadable(path, e) from None
    if not stats.S_ISREG(s.st_mode):
        raise DataError(
            f"{path} is a pipe, a device or a folder, not a file that can be read twice: write its"
            " text to a file"
        )
    return File(path, s.st_size, str(s.st_mtime_ns))


def _remote(name: str, endings: tuple[str, ...]) -> list[File]:
    fs = _filesystem(name)
    try:
        if any(c in name for c in "*?["):
            about = fs.glob(name, detail=True)
        elif fs.isdir(name) and not name.startswith("http"):
            about = fs.find(name, detail=True)
            about = {p: a for p, a in about.items() if not endings or p.endswith(endings)}
        else:
            about = {name: fs.info(name)}
    except FileNotFoundError:
        return []
    except Exception as e:  # every service has errors of its own
        raise unreadable(name, e) from None
    out = []
    for path, info in about.items():
        if info.get("type") == "directory":
            continue
        if info.get("size") is None:
            raise DataError(f"{path}: the server does not say how long it is: copy it near first")
        marks = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created", "last_commit")
        stamp = ";".join(str(info[k]) for k in marks if info.get(k) is not None)
        out.append(File(fs.unstrip_protocol(path), info["size"], stamp))
    return out
