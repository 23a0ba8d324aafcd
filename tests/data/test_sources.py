"""Each kind of file is read back as it was written, and told apart by what it begins with."""

import contextlib
import glob
import gzip
import http.server
import json
import os
import pathlib
import tempfile
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data import inspection, prepare
from data.config import Data, DataError
from data.sources import corpus, files, jsonl, long_json_line, registry

TEXTS = [f"document {i} with words\nand lines, \u00e9\u4e2d\U0001f98a {i * i}" for i in range(300)]


@pytest.fixture
def written(tmp_path):
    """The same documents in every form; column names differ."""
    folder = tmp_path / "texts"
    folder.mkdir()
    rows = [json.dumps({"id": i, "meta": {"text": "no"}, "text": t}) for i, t in enumerate(TEXTS)]
    plain = "\n".join(rows).encode() + b"\n"
    (folder / "a.jsonl").write_bytes(plain)
    (folder / "ascii.jsonl").write_text(
        "\r\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in TEXTS)
    )
    with gzip.open(folder / "a.jsonl.gz", "wb") as f:
        f.write(plain[:5000])
    with gzip.open(folder / "a.jsonl.gz", "ab") as f:  # two members, as parallel writers leave
        f.write(plain[5000:])
    z = zstandard.ZstdCompressor()
    (folder / "a.jsonl.zst").write_bytes(z.compress(plain[:7000]) + z.compress(plain[7000:]))
    table = pa.table({"n": list(range(len(TEXTS))), "content": TEXTS})
    pq.write_table(table, folder / "a.parquet", row_group_size=37)
    with (
        pa.OSFile(str(folder / "stream.arrow"), "wb") as f,
        pa.ipc.new_stream(f, table.schema) as w,
    ):
        w.write_table(table, max_chunksize=50)
    with pa.OSFile(str(folder / "file.arrow"), "wb") as f, pa.ipc.new_file(f, table.schema) as w:
        w.write_table(table, max_chunksize=50)
    return folder


FORMS = [
    ("jsonl", "a.jsonl"),
    ("jsonl", "ascii.jsonl"),
    ("jsonl", "a.jsonl.gz"),
    ("jsonl", "a.jsonl.zst"),
    ("parquet(column=content)", "a.parquet"),
    ("arrow(column=content)", "stream.arrow"),
    ("arrow(column=content)", "file.arrow"),
]


def read(d, cache="") -> dict:
    found = registry.load(d, cache)
    return {s: list(found.documents(s)) for s in ("train", "validation")}


@pytest.mark.parametrize("source,name", FORMS)
def test_documents_are_those_that_were_written(written, tmp_path, source, name, monkeypatch):
    """In one unit or in many, and the same document is in the same split whatever the form."""
    d = Data(source=source, path=str(written / name))
    got = read(d, str(tmp_path / "cache"))
    assert sorted(got["train"] + got["validation"]) == sorted(t.encode() for t in TEXTS)
    assert 3 <= len(got["validation"]) <= 40
    texts = [t.encode() for t in TEXTS]
    want = {t for t, s in zip(texts, corpus.splits_of(texts)) if s == "validation"}
    assert set(got["validation"]) == want
    monkeypatch.setattr(corpus, "UNIT", 1000)
    assert read(d, str(tmp_path / "cache")) == got
    assert prepare.prepare(d, str(tmp_path / "cache"), 1).meta["splits"]["train"]["documents"] == (
        len(got["train"])
    )


def test_hugging_face_datasets_saved_to_disk(tmp_path):
    """A folder as datasets.save_to_disk writes it (state.json, dataset_info.json beside)."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    got = read(Data(source="arrow", path=str(tmp_path / "saved")), str(tmp_path / "cache"))
    assert sorted(got["train"] + got["validation"]) == sorted(t.encode() for t in TEXTS)


def test_files_that_are_validated_on(written, tmp_path):
    d = Data(source="jsonl", path=str(written / "a.jsonl"))
    d = Data(**{**d.__dict__, "validation_path": str(written / "a.jsonl.zst")})
    got = read(d, str(tmp_path / "cache"))
    assert got["train"] == got["validation"] == [t.encode() for t in TEXTS]
    twice = Data(source="jsonl", path=str(written), validation_path=str(written / "a.jsonl"))
    with pytest.raises(DataError, match=r"a.jsonl stands in data.path and in data.validation"):
        registry.load(twice, str(tmp_path / "cache"))


def test_a_folder_gives_the_files_of_its_kind(written, tmp_path):
    (written / ".hidden.jsonl").write_text("no")
    found = registry.load(Data(source="jsonl", path=str(written)), str(tmp_path / "cache"))
    names = sorted(os.path.basename(f.path) for f in found.order[""])
    assert names == ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "ascii.jsonl"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.booleans(),
    st.integers(1, 40),
)
def test_a_long_line_is_read_as_json_reads_it(others, text, ascii_only, size):
    """Whatever stands around the field, and wherever the blocks end."""
    row = {**others, "text": text, "z": {"text": 1}}
    line = json.dumps(row, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    blocks = (line[i : i + size] for i in range(0, len(line), size))
    got = b"".join(long_json_line.read(blocks, "text", "here"))
    assert got == text.encode("utf-8", "surrogatepass")


def test_long_lines_are_documents_like_others(tmp_path, monkeypatch):
    texts = ["word \u00e9 " * 5000, "short", "\U0001f98a\n" * 9000, "end"]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"n": [1, {"text": 0}], "text": t}) for t in texts))
    want = read(Data(source="jsonl", path=str(path)), str(tmp_path))
    for name, size in (("PIECE", 1000), ("UNIT", 7000)):
        monkeypatch.setattr(corpus, name, size)
    monkeypatch.setattr(jsonl, "LONG", 3000)
    found = registry.load(Data(source="jsonl", path=str(path)), str(tmp_path))
    whole, held = [], b""
    for unit in found.units():
        for block in found.read(unit):
            assert len(block.splits) == len(block.texts) and max(map(len, block.texts)) <= 1000
            if block.ends and not held:
                whole += block.texts
            else:
                (piece,) = block.texts
                held += piece
                if block.ends:
                    whole, held = [*whole, held], b""
    assert sorted(whole) == sorted(t.encode() for t in texts) == sorted(sum(want.values(), []))


@given(st.binary(max_size=3000), st.integers(8, 400))
def test_pieces_are_the_document(raw, size):
    """Wherever they are cut, and however the text comes."""
    before = corpus.PIECE
    try:
        corpus.PIECE = size
        for blocks in ([raw], [raw[i : i + 7] for i in range(0, len(raw), 7)]):
            found = list(corpus.pieces(iter(blocks)))
            assert b"".join(p.texts[0] for p in found) == raw
            assert [p.ends for p in found] == [False] * (len(found) - 1) + [True]
            assert all(len(p.texts) == 1 and len(p.texts[0]) <= size for p in found)
    finally:
        corpus.PIECE = before


def test_which_documents_are_validated_on_stays():
    """Another choice would be another corpus."""
    texts = [b"%d" % i + b"x" * (97 * i) for i in range(60)]
    held = [i for i, split in enumerate(corpus.splits_of(texts)) if split == "validation"]
    assert held == [27, 40]
    assert corpus.splits_of(texts[7:9]) == corpus.splits_of([texts[7]]) + corpus.splits_of(
        [texts[8]]
    )


NUMBERS = st.integers() | st.floats(allow_nan=True)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.fixed_dictionaries({"text": st.text() | JSON | NUMBERS, "n": JSON | NUMBERS})),
    st.sampled_from(["", " ", "\r", "}", ",", "{}"]),
    st.booleans(),
)
def test_lines_are_read_as_json_reads_them(rows, behind, ascii_only):
    """Also where the quicker library does not know what json does, as NaN and half of a pair."""
    for row in rows:
        line = json.dumps(row, ensure_ascii=ascii_only) + behind
        raw = line.encode("utf-8", "surrogatepass")
        try:
            want = json.loads(line)["text"]
        except ValueError:
            want = 0
        source, unit = jsonl.Jsonl(), corpus.Unit("a.jsonl", 0, 9, "", 9)
        if want is None or isinstance(want, str):
            text = None if want is None else want.encode("utf-8", "surrogatepass")
            assert source._text(raw, unit, 1) == text
        else:
            with pytest.raises(DataError, match=r"a.jsonl: line 1 "):
                source._text(raw, unit, 1)


def test_lines_without_the_quicker_library(monkeypatch):
    monkeypatch.setattr(jsonl, "_row", jsonl._plain)
    test_lines_are_read_as_json_reads_them()


def test_a_byte_order_mark_is_refused_with_either_library(monkeypatch):
    line, unit = b'\xef\xbb\xbf{"text": "a"}', corpus.Unit("a.jsonl", 0, 9, "", 9)
    for read in (jsonl._row, jsonl._plain):
        monkeypatch.setattr(jsonl, "_row", read)
        with pytest.raises(DataError, match="line 1 is not JSON .*BOM"):
            jsonl.Jsonl()._text(line, unit, 1)


def bad(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


ROW = b'{"text": "a line of text"}\n'
PLAIN = b"some text of a line\n" * 400
BAD = {
    "utf-16": ("text", "a.txt", "text".encode("utf-16") * 99, "UTF-16, .*iconv"),
    "nul": ("text", "a.txt", b"text\0" * 900, "binary, which data.source=text does not read"),
    "crlf": ("text", "a.txt", b"a line\r\n" * 900, r"CRLF.*text\(newlines=unix\)"),
    "late nul": ("text", "a.txt", PLAIN * 20 + b"\0" + PLAIN * 200, r"NUL bytes.*tr -d"),
    "late crlf": ("text", "a.txt", PLAIN * 20 + b"\r\n" + PLAIN * 200, "CRLF.*newlines=unix"),
    "crlf of two blocks": (
        "text",
        "a.txt",
        b"x" * (2**20 - 1) + b"\r\n" + b"x" * 2**20,
        "CRLF.*newlines=unix",
    ),
    "gz": ("text", "a.txt.gz", gzip.compress(PLAIN), "gzip, which data.source=text.*gunzip"),
    "json lines": ("text", "a.jsonl", ROW * 9, "JSON lines, not plain.*data.source=jsonl"),
    "parquet": ("text", "a.txt", b"PAR1" + b"x" * 99, "parquet, which .*data.source=parquet"),
    "empty": ("text", "a.txt", b"", "empty"),
    "newlines": ("text(newlines=dos)", "a.txt", PLAIN, "choose keep or unix"),
    "cut gz": ("jsonl", "a.jsonl.gz", gzip.compress(ROW * 999)[:-20], "damaged or cut off"),
    "cut zst": (
        "jsonl",
        "a.jsonl.zst",
        zstandard.ZstdCompressor().compress(ROW * 99999)[:-20],
        "damaged or cut off",
    ),
    "wrong zst": (
        "jsonl",
        "a.jsonl.zst",
        zstandard.ZstdCompressor().compress(ROW * 999) + b"12345",
        "damaged or cut off",
    ),
    "no json": ("jsonl", "a.jsonl", ROW + b"{text\n", "line 2 is not JSON"),
    "list": ("jsonl", "a.jsonl", b"[1]\n", "line 1 is no JSON object, but a list"),
    "field": ("jsonl(field=body)", "a.jsonl", ROW, "no field 'body', only text: set data.source"),
    "number": ("jsonl", "a.jsonl", b'{"text": 3}\n', "a number in 'text', not text"),
    "plain": ("jsonl", "a.jsonl", PLAIN, "line 1 is not JSON"),
    "no parquet": ("parquet", "a.parquet", ROW * 9, "JSON lines|text, which data.source=parquet"),
    "cut parquet": ("parquet", "a.parquet", b"PAR1" + b"\0" * 999, "damaged or cut off"),
    "arrow": ("arrow", "a.arrow", b"ARROW1\0\0" + b"\1" * 99, "damaged or cut off"),
    "no field": ("jsonl(name=text)", "a.jsonl", ROW, "jsonl has no field 'name', it has field"),
    "bracket": ("jsonl(field=text", "a.jsonl", ROW, "bracket is missing"),
    "words": ("jsonl(text)", "a.jsonl", ROW, "write a field as name=value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path, case):
    source, name, content, words = BAD[case]
    path = bad(tmp_path, name, content)
    with pytest.raises(DataError, match=words) as e:
        prepare.prepare(Data(source=source, path=path), str(tmp_path / "cache"), 1)
    assert "\n" not in str(e.value)
    assert case in ("no field", "bracket", "words", "empty", "newlines") or path in str(e.value)


def test_bad_columns(tmp_path):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [1, 2], "body": ["a", None]}), path)
    for source, words in {
        "parquet": "no column 'text', only n, body",
        "parquet(column=n)": "int64 in column 'n', not text",
    }.items():
        with pytest.raises(DataError, match=words):
            prepare.prepare(Data(source=source, path=path), str(tmp_path / "c"), 1)
    got = read(Data(source="parquet(column=body)", path=path), str(tmp_path / "c"))
    assert sum(got.values(), []) == [b"a"]  # a row without text is no document
    pq.write_table(pa.table([pa.array(["a"])] * 2, names=["text", "text"]), path)
    with pytest.raises(DataError, match="several columns 'text'"):
        prepare.prepare(Data(source="parquet", path=path), str(tmp_path / "c"), 1)


@pytest.mark.parametrize("packed", [False, True])
def test_text_that_is_not_utf8_is_read_as_its_bytes(tmp_path, packed):
    """As other writers leave it in a column of text."""
    path, raw = str(tmp_path / "a.parquet"), pa.array([b"\xff\xfe x", None, b"y"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    column = column.dictionary_encode() if packed else column
    pq.write_table(pa.table({"text": column}), path)
    got = read(Data(source="parquet", path=path), str(tmp_path / "c"))
    assert sorted(sum(got.values(), [])) == [b"y", b"\xff\xfe x"]


def test_windows_line_ends_on_demand(tmp_path):
    path = bad(tmp_path, "a.txt", b"a line\r\n" * 900)
    for how, want in (("keep", b"a line\r\n"), ("unix", b"a line\n")):
        got = read(Data(source=f"text(newlines={how})", path=path), str(tmp_path / "c"))
        assert b"".join(sum(got.values(), [])) == want * 900


@given(st.text("ab\r\n", max_size=300), st.integers(8, 40))
def test_line_ends_that_blocks_share(tmp_path_factory, words, size):
    """Wherever blocks and units end."""
    folder, raw = tmp_path_factory.mktemp("text"), words.encode()
    before = corpus.PIECE, corpus.UNIT
    path = bad(folder, "a.txt", raw)
    try:
        corpus.PIECE, corpus.UNIT = size, 2 * size
        got = read(Data(source="text(newlines=unix)", path=path), str(folder / "c"))
        assert b"".join(sum(got.values(), [])) == raw.replace(b"\r\n", b"\n")
    finally:
        corpus.PIECE, corpus.UNIT = before


def test_a_small_text_has_no_empty_document(tmp_path):
    for n in (1, 19, 20, 200):
        got = read(Data(source="text", path=bad(tmp_path, "a.txt", b"x" * n)), str(tmp_path / "c"))
        assert b"".join(got["train"] + got["validation"]) == b"x" * n
        assert all(got["train"] + got["validation"]) and len(got["validation"]) == (n >= 20)


SKIPPED = b"\x5a\x2a\x4d\x18\4\0\0\0abcd"  # of RFC 8878, section 3.1.2


def test_frames_of_zstandard(written, tmp_path):
    """Those that hold nothing, before others and between them; and one that looks back further than
    the library allows of itself, as zstd --long=31 writes it.
    """
    raw = (written / "a.jsonl").read_bytes()
    z = zstandard.ZstdCompressor()
    far = b"\x28\xb5\x2f\xfd\0" + bytes([21 << 3])  # no length, a window of 2^(10 + 21)
    block = (len(raw) << 3 | 1).to_bytes(3, "little") + raw  # the last one, as it is
    for packed in (
        SKIPPED * 2 + z.compress(raw[:900]) + SKIPPED + z.compress(raw[900:]) + SKIPPED,
        far + block,
    ):
        path = bad(tmp_path, "a.jsonl.zst", packed)
        got = read(Data(source="jsonl", path=path), str(tmp_path / "c"))
        assert sorted(sum(got.values(), [])) == sorted(t.encode() for t in TEXTS)
    path = bad(tmp_path, "b.txt", SKIPPED + z.compress(raw))
    with pytest.raises(DataError, match="b.txt is zstandard, which .*unpack it"):
        read(Data(source="text", path=path), str(tmp_path / "c"))


def test_links_in_a_circle(tmp_path):
    os.symlink(tmp_path / "b.txt", tmp_path / "a.txt")
    os.symlink(tmp_path / "a.txt", tmp_path / "b.txt")
    with pytest.raises(DataError, match=r"cannot read .*a.txt: Too many levels"):
        registry.load(Data(source="text", path=str(tmp_path / "a.txt")), str(tmp_path / "c"))
    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path / "folder", tmp_path / "folder" / "again")
    (tmp_path / "folder" / "t.txt").write_bytes(PLAIN)
    os.symlink(tmp_path / "folder", tmp_path / "folder" / "and again")  # 2^40 ways to the file
    for path in ("folder", "folder/**/*.txt", "folder/**", "**/t.txt", "fold*/**/**/t.txt"):
        data = Data(source="text", path=str(tmp_path / path))
        assert len(registry.load(data, str(tmp_path / "c")).order[""]) == 1, path


def test_two_stars_are_folders_and_hidden_ones_are_left_out(tmp_path):
    for folder in ("", "a", "a/b", ".git", "a/.b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "t.txt").write_bytes(PLAIN)
    for pattern in ("**/t.txt", "a/**/*.txt", "**/b/*", "**", "a**/t.txt"):
        found = files.find(str(tmp_path / pattern), ())
        wanted = glob.glob(str(tmp_path / pattern), recursive=True)
        assert [f.path for f in found] == sorted(p for p in wanted if os.path.isfile(p))


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "", "p*"):
        with pytest.raises(DataError, match=r"pipe is a pipe, a device or a folder, not a file"):
            files.find(str(tmp_path / path), ())


def test_a_name_that_is_not_utf8(tmp_path):
    folder = tmp_path / "names"
    folder.mkdir()
    with open(os.path.join(os.fsencode(folder), b"\xff\xfe.txt"), "wb") as f:
        f.write(PLAIN)
    assert read(Data(source="text", path=str(folder)), str(tmp_path / "c"))


@contextlib.contextmanager
def somebody():
    """Root may read everything: as another user, where that is possible."""
    me = os.geteuid()
    if me == 0:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root cannot become another user here")
    try:
        yield
    finally:
        os.seteuid(me)


def test_no_rights():
    """To read a file, to look into a folder, to write the cache."""
    with tempfile.TemporaryDirectory() as place:  # which others may go into, unlike pytest's
        os.chmod(place, 0o755)
        folder = pathlib.Path(place)
        path, locked = bad(folder, "a.txt", PLAIN), folder / "locked"
        locked.mkdir(mode=0)
        got = Data(source="text", path=path)
        prepare.prepare(got, str(folder / "own"), 1)  # what it imports may be root's alone
        with somebody():
            with pytest.raises(DataError, match="cannot write the token cache .* ISOFLOP_CACHE"):
                prepare.prepare(got, str(locked / "c"), 1)
        os.chmod(path, 0)
        for what in (path, str(locked), str(locked / "b.txt")):
            with somebody(), pytest.raises(DataError, match=f"{what}.*(denied|matches no file)"):
                registry.load(Data(source="text", path=what), str(folder / "c"))
        os.chmod(locked, 0o755)


def test_a_glob_that_matches_nothing(tmp_path):
    with pytest.raises(DataError, match=r"no\*.jsonl' matches no file"):
        registry.load(Data(source="jsonl", path=str(tmp_path / "no*.jsonl")), str(tmp_path / "c"))
    with pytest.raises(DataError, match="matches no file that ends in .parquet"):
        registry.load(Data(source="parquet", path=str(tmp_path)), str(tmp_path / "c"))


def test_remote_files_in_memory(written, tmp_path):
    """The same text, behind a URL, is the same corpus: same documents, same fingerprint."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for source, name in FORMS:
        memory.pipe(f"/corpus/{name}", (written / name).read_bytes())
        there = Data(source=source, path=f"memory://corpus/{name}")
        here = Data(source=source, path=str(written / name))
        assert read(there, str(tmp_path / "c")) == read(here, str(tmp_path / "c"))
        prints = [registry.load(d, str(tmp_path / "c")).fingerprint for d in (there, here)]
        assert prints[0] == prints[1]
    found = files.find("memory://corpus/*.jsonl", ())
    assert [f.path for f in found] == ["memory:///corpus/a.jsonl", "memory:///corpus/ascii.jsonl"]
    with pytest.raises(DataError, match="matches no file"):
        files.find("memory://corpus/none.jsonl", ())


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """A server of files that answers requests for parts of one."""

    def do_GET(self):
        content = pathlib.Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        low, high = 0, len(content) - 1
        if wanted:
            low, high = (int(x) for x in wanted.removeprefix("bytes=").split("-"))
            high = min(high, len(content) - 1)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(high - low + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", "x")
        if wanted:
            self.send_header("Content-Range", f"bytes {low}-{high}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[low : high + 1])

    def log_message(self, *a):
        pass


def test_remote_files_over_http(written, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.chdir(written)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/a.jsonl.zst"
        got = read(Data(source="jsonl", path=url), str(tmp_path / "c"))
    finally:
        server.shutdown()
        server.server_close()
    assert sorted(sum(got.values(), [])) == sorted(t.encode() for t in TEXTS)


def test_duplicates_are_counted(tmp_path, monkeypatch):
    """Also where hashes are sorted in parts, and documents go on from one block to the next."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in [*TEXTS, *TEXTS[:7]]))
    d = Data(source="jsonl", path=str(path))
    want = {"documents": 307, "repeated": 7}
    for part, block in ((inspection.PART, inspection.BLOCK), (40, 1000)):
        monkeypatch.setattr(inspection, "PART", part)
        monkeypatch.setattr(inspection, "BLOCK", block)
        about = inspection.describe(d, str(tmp_path / "c"), 1)
        assert about["sources"]["jsonl"]["duplicates"] == want
        assert (
            about["splits"]["train"]["documents"] + about["splits"]["validation"]["documents"]
            == 307
        )
