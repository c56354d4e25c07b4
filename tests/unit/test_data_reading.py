"""What the readers take, and what they refuse, skip and count."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magicbert.config.sections import CorpusSection
from magicbert.data import plain_text
from magicbert.data.documents import clean, read_documents
from magicbert.data.hub import parse_name
from magicbert.data.skipping import CUT, EMPTY_FILE, NOT_UTF8, Skips
from magicbert.data.sources import resolve_sources
from magicbert.errors import UserError


def write_zstd(path: Path, data: bytes) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)


def write_compressed(path: Path, data: bytes) -> Path:
    if path.suffix == ".zst":
        write_zstd(path, data)
    else:
        path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(data))
    return path


def read(path: Path | str, **corpus: object) -> tuple[list[str], Skips]:
    section = CorpusSection(**{"sources": (str(path),), **corpus})
    skips = Skips(str(path), section.on_bad_utf8)
    units = resolve_sources(section.sources, skips)
    return [text for unit in units for text in read_documents(unit, section, skips)], skips


def parquet_bytes(texts: list[str | None], field: str = "text") -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(len(texts))), field: texts}), sink)
    return sink.getvalue()


TEXTS = ["first line\nsecond line", "näïve 文 text", "third"]
WRITERS: dict[str, Callable[[], bytes]] = {
    ".txt": lambda: "\n\n".join(TEXTS).encode(),
    ".jsonl": lambda: "\n".join(json.dumps({"text": text, "id": 1}) for text in TEXTS).encode(),
    ".parquet": lambda: parquet_bytes(list(TEXTS)),
}


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", list(WRITERS))
def test_every_format_and_compression_gives_the_same_documents(
    tmp_path: Path, kind: str, compression: str
) -> None:
    path = write_compressed(tmp_path / f"a{kind}{compression}", WRITERS[kind]())
    texts, skips = read(path)

    assert [clean(text) for text in texts] == TEXTS
    assert not skips.items()


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, kind: str, compression: str) -> None:
    noise = os.urandom(50_000).hex().encode()
    body = json.dumps({"text": noise.decode()}).encode() if kind == ".jsonl" else noise
    path = write_compressed(tmp_path / f"cut{kind}{compression}", body)
    path.write_bytes(path.read_bytes()[:-1000])

    with pytest.raises(UserError, match=rf"cut{kind}{compression}: truncated"):
        read(path)


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, compression: str) -> None:
    path = write_compressed(tmp_path / f"bad.txt{compression}", os.urandom(50_000).hex().encode())
    data = bytearray(path.read_bytes())
    # Frames of zstd need not hold a checksum, so there it is the header that is hit.
    data[0 if compression == ".zst" else len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))

    with pytest.raises(UserError, match=rf"bad.txt{compression}"):
        read(path)


def test_binary_data_is_refused_with_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"text\n" + b"\x00\x01")

    with pytest.raises(UserError, match=r"a\.txt: binary data \(NUL at byte 5\)"):
        read(path)


def test_utf16_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello", encoding="utf-16")

    with pytest.raises(UserError, match="UTF-16 must be converted"):
        read(path)


def test_bad_utf8_is_refused_with_its_offset_or_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n\nnot \xff good\n\nfine\n\n\xc3\n")

    with pytest.raises(UserError, match=r"a\.txt: byte 10: not UTF-8"):
        read(path)
    texts, skips = read(path, on_bad_utf8="skip")
    assert [clean(text) for text in texts] == ["good", "fine"]
    (item,) = skips.items()
    assert (item.reason, item.count, item.first) == (NOT_UTF8, 2, "byte 10")


def test_bad_utf8_in_records(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "ok"}\n{"text": "\xff"}\n{"text": "\\ud800"}\n')

    with pytest.raises(UserError, match=r"a\.jsonl: line 2: not UTF-8"):
        read(path)
    texts, skips = read(path, on_bad_utf8="skip")
    assert texts == ["ok"]
    assert skips.items()[0].count == 2


def test_an_empty_file_is_skipped_and_counted(tmp_path: Path) -> None:
    for name in ("a.txt", "b.jsonl", "c.parquet", "d.txt.xz"):
        (tmp_path / name).touch()
        texts, skips = read(tmp_path / name)

        assert texts == []
        assert [(item.reason, item.count) for item in skips.items()] == [(EMPTY_FILE, 1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', "not JSON"),
        ('["text"]', "not an object, got list"),
        ('{"body": "x"}', r"no field 'text' \(has body\); set corpus.text_field"),
        ('{"text": 3}', "field 'text' must be text, got int"),
        ('{"text": null}', "field 'text' must be text, got NoneType"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_jsonl_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + "\n")

    with pytest.raises(UserError, match=rf"a\.jsonl:3: {message}"):
        read(path)


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_bytes(["x"], field="body"))
    with pytest.raises(UserError, match=r"a\.parquet: no column 'text' \(has id, body\)"):
        read(path)
    with pytest.raises(UserError, match="column 'id' must hold text, it holds int64"):
        read(path, text_field="id")
    path.write_bytes(parquet_bytes(["x", None]))
    with pytest.raises(UserError, match="row 2: 'text' is null"):
        read(path)
    path.write_bytes(b"not parquet at all")
    with pytest.raises(UserError, match=r"a\.parquet: (damaged|not a readable Parquet file)"):
        read(path)


@pytest.mark.parametrize(
    ("separator", "expected"),
    [("blank-line", ["a\nb", "c"]), ("line", ["a", "b", "c"]), ("file", ["a\nb\n\n \n\nc"])],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(
    tmp_path: Path, separator: str, expected: list[str], end: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\n\na\nb\n\n \n\nc\n\n".replace("\n", end).encode())
    texts, skips = read(path, document_separator=separator)

    assert [clean(text) for text in texts] == expected
    assert not skips.items()


def test_line_ends_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "BLOCK_BYTES", 3)
    path = tmp_path / "a.txt"
    path.write_bytes("a文文文b\r\n\r\nccc\r\ndd\r\n".encode())

    texts, _ = read(path)
    assert [clean(text) for text in texts] == ["a文文文b", "ccc\ndd"]


def test_control_characters_and_byte_order_marks_are_normalised(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\x07two\x0b\tthree\xc2\x85four\rfive")

    texts, _ = read(path)
    assert clean(texts[0]) == "one two \tthree four\nfive"


def test_long_documents_are_cut_without_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_text, "BLOCK_BYTES", 16)
    monkeypatch.setattr(plain_text, "MAX_DOCUMENT_BYTES", 64)
    path = tmp_path / "a.txt"
    lines = ["文" * 50, *(f"line {number}" for number in range(20))]
    path.write_text("\n".join(lines), encoding="utf-8")

    texts, skips = read(path)
    assert "".join(texts) == "\n".join(lines)
    assert max(len(text.encode()) for text in texts) <= 64 + 16
    assert skips.items()[0].reason == CUT


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt: no such file or folder"):
        read(tmp_path / "gone.txt")
    with pytest.raises(UserError, match=r"\*\.txt: no file matches"):
        read(tmp_path / "*.txt")
    (tmp_path / "link.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(UserError, match=r"link\.txt: (broken link|no such file)"):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="in this folder"):
        read(tmp_path / "empty")
    with pytest.raises(UserError, match=r"variable \$NO_SUCH_FOLDER is not set"):
        read("$NO_SUCH_FOLDER/a.txt")


def test_folders_and_globs_are_read_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.txt", "sub/c.jsonl", "notes.csv", ".hidden.txt"):
        text = '{"text": "c"}' if name.endswith("jsonl") else name
        (tmp_path / name).write_text(text)

    texts, skips = read(tmp_path)
    assert texts == ["a.txt", "b.txt", "c"]
    assert [(item.reason, item.first) for item in skips.items()] == [
        ("not a text, JSONL or Parquet file", f"{tmp_path}/notes.csv")
    ]
    assert read(tmp_path / "**/*.txt")[0] == ["a.txt", "b.txt"]


def test_names_keep_the_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXT_FOLDER", str(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    names = [
        resolve_sources([source], Skips(""))[0].name
        for source in ("$TEXT_FOLDER/a.txt", "${TEXT_FOLDER}", "$TEXT_FOLDER/*.txt")
    ]

    assert names == ["$TEXT_FOLDER/a.txt", "${TEXT_FOLDER}/a.txt", "$TEXT_FOLDER/a.txt"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:org/set", ("org/set", "", "train")),
        ("hf:org/set:en", ("org/set", "en", "train")),
        ("hf:org/set::test", ("org/set", "", "test")),
        ("hf:org/set:en:test", ("org/set", "en", "test")),
    ],
)
def test_hub_names(name: str, parts: tuple[str, str, str]) -> None:
    assert parse_name(name) == parts


@pytest.mark.parametrize("max_documents", [0, 2])
def test_a_data_set_of_the_datasets_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_documents: int
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(WRITERS[".jsonl"]())

    texts, _ = read(f"hf:{folder}", max_documents=max_documents)
    assert texts == (TEXTS[:max_documents] if max_documents else TEXTS)
    with pytest.raises(UserError, match="no column 'body'"):
        read(f"hf:{folder}", text_field="body", max_documents=max_documents)
    with pytest.raises(UserError, match="hf:nobody/nothing: cannot be loaded"):
        read("hf:nobody/nothing")


def test_max_documents_stops_early(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\ntwo\n\nbad \xff\n")

    assert read(path, max_documents=2)[0] == ["one\n", "two\n"]
