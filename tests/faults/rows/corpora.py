"""F4: text that breaks readers."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

from matrix import Finding, mutant, row

from magicbert.config.sections import CorpusSection
from magicbert.data.documents import read_documents
from magicbert.data.plain_text import BLOCK_BYTES
from magicbert.data.skipping import Skips
from magicbert.data.sources import resolve_sources
from magicbert.errors import UserError

READER = Path(__file__).parents[1] / "read_corpus.py"
ROOT = Path(__file__).parents[3]
MAX_MEGABYTES_OVER = 300
SENTENCE = "the old ship left the harbour at dawn and sailed north with number"


def documents(count: int, first: int = 0) -> list[str]:
    return [f"{SENTENCE} {number}" for number in range(first, first + count)]


def write_readable(folder: Path, num_megabytes: int) -> tuple[int, dict[str, int]]:
    """Writes what must be read; returns the documents to keep and the counts to report."""
    folder.mkdir()
    (folder / "a-plain.txt").write_text("\n\n".join(documents(40)))  # no final line feed
    (folder / "b-bom-crlf.txt").write_bytes(
        b"\xef\xbb\xbf" + "\r\n\r\n".join(documents(10, 100)).encode() + b"\r\n"
    )
    (folder / "c-empty.txt").write_bytes(b"")
    (folder / "d-blank.txt").write_text(" \n\t\n\u2003\n\n\u3000\n")
    (folder / "e-double.txt").write_text("\n\n".join(documents(10)))
    # A character cut by the edge of a block is whole; a stray byte there costs its document.
    whole = b"x" * (BLOCK_BYTES - 1) + "é".encode() + b" whole\n\n"
    stray = b"y" * (BLOCK_BYTES - len(b" whole\n\n") - 2) + b"\xff stray\n\n"
    (folder / "f-edges.txt").write_bytes(whole + stray + documents(1, 200)[0].encode())
    line = f"{SENTENCE} ".encode() * (num_megabytes * 10**6 // len(SENTENCE))
    (folder / "g-long-line.txt").write_bytes(line + b"\n")
    (folder / "h-long-word.txt").write_text("w" * 4_000_000 + " end\n")
    (folder / "i-controls.txt").write_bytes(b"a\x01b\x1b[31m\x7f red\n\n" + b"\xc2\x85\xe2\x80\xa8")
    (folder / "inner").mkdir()
    (folder / "inner" / "loop").symlink_to(folder)
    (folder / "notes.pdf").write_bytes(b"%PDF")
    num_parts = -(-len(line) // (4 << 20))
    reported = {
        "empty file": 1, "duplicate document": 10, "not UTF-8": 1,
        "linked folder, not followed": 1, "not a text, JSONL or Parquet file": 1,
    }  # fmt: skip
    return 40 + 10 + 1 + 1 + num_parts + 1 + 1, reported


def read_awkward(folder: Path, num_megabytes: int, defence: str = "") -> Finding:
    """Prepares the readable part in a process of its own and compares the counts."""
    wanted, reported = write_readable(folder / "corpus", num_megabytes)
    done = subprocess.run(
        [sys.executable, str(READER), str(folder / "corpus"), str(folder / "runs"), defence],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    if done.returncode:
        return Finding(False, done.stderr[-300:], 1)
    found = json.loads(done.stdout.splitlines()[-1])
    skipped = dict(found["skipped"])
    skipped.pop("cut in two, nothing lost: document above 4 MiB", None)
    # A document of white space alone is an empty document or a document without tokens.
    num_empty = skipped.pop("empty document", 0) + skipped.pop("no tokens", 0)
    differences = {
        name: (skipped.get(name, 0), reported.get(name, 0))
        for name in skipped.keys() | reported.keys()
        if skipped.get(name, 0) != reported.get(name, 0)
    }
    lost = wanted - found["kept"]
    figure = (
        f"{wanted} documents: {lost} lost, {sum(reported.values()) + num_empty} left out and "
        f"reported; {found['over']} MB over {found['base']} MB, "
        f"{found['seconds_per_megabyte']} s/MB"
    )
    if differences:
        figure += f"; counts (found, expected): {differences}"
    is_fine = not lost and not differences and found["over"] < MAX_MEGABYTES_OVER
    return Finding(is_fine, figure, sum(reported.values()))


REFUSED: dict[str, bytes] = {
    "nul.txt": b"some text\n\n\0 more\n",
    "utf16.txt": "some text\n".encode("utf-16"),
    "cut.txt.gz": gzip.compress(b"some text\n" * 9999)[:-20],
    "flipped.txt.gz": gzip.compress(b"some text\n" * 9999)[:-9] + b"\xff" * 9,
    "latin.txt": b"caf\xe9\n",
    "cut.jsonl": b'{"text": "a"}\n{"text": "b',
    "twice.jsonl": b'{"text": "a", "text": "b"}\n',
    "field.jsonl": b'{"text": "a"}\n{"txt": "b"}\n',
    "null.jsonl": b'{"text": null}\n',
    "number.jsonl": b'{"text": NaN}\n',
    "deep.jsonl": b'{"text": ' + b"[" * 100_000 + b"}\n",
    "surrogate.jsonl": b'{"text": "\\ud800"}\n',
    "zeros.parquet": b"PAR1" + bytes(100) + b"PAR1",
    "text.parquet": b"this is no parquet\n",
}


def refused_in_silence(folder: Path) -> list[str]:
    """Returns the damaged files that were read, or refused without their name."""
    folder.mkdir()
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    wrong = []
    for name in [*REFUSED, "loop.txt"]:
        if name in REFUSED:
            (folder / name).write_bytes(REFUSED[name])
        source = str(folder / name) if name != "loop.txt" else f"{folder}/loop*"
        try:
            (unit,) = resolve_sources((source,), Skips("corpus.sources"))
            list(read_documents(unit, CorpusSection(), Skips(unit.name)))
        except UserError as error:
            if name.split(".")[0] not in str(error):
                wrong.append(f"{name}: not named: {error}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}")
        else:
            wrong.append(f"{name}: read")
    return wrong


@row(
    "F4",
    fault="corpora with bad UTF-8 at block edges, a 50 MB line, a 4 MB word, NUL, BOM, CRLF, empty "
    "and repeated documents, link loops, cut and damaged files",
    expected="read within 300 MB over base, or refused by name; every document kept or counted",
    tier="P",
)
def awkward_corpora(folder: Path, is_thorough: bool) -> Finding:
    finding = read_awkward(folder, 50 if is_thorough else 5)
    wrong = refused_in_silence(folder / "refused")
    figure = f"{finding.figure}; {len(REFUSED) + 1} damaged files: {len(wrong)} read in silence"
    is_fine = bool(finding.passed) and not wrong
    return Finding(is_fine, "; ".join([figure, *wrong[:3]]), finding.num_fired + len(REFUSED))


@mutant("F4", "documents that are not UTF-8 are dropped without a count")
def without_counting(folder: Path, is_thorough: bool) -> Finding:
    return read_awkward(folder, 1, "counted encodings")


@mutant("F4", "long documents are not cut")
def without_cutting(folder: Path, is_thorough: bool) -> Finding:
    return read_awkward(folder, 6, "bounded documents")
