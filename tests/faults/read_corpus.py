"""Prepares an awkward corpus in a process of its own; prints counts, peak memory and seconds.

    python tests/faults/read_corpus.py FOLDER ROOT [DEFENCE]

Everything in ``FOLDER`` is one corpus. Base memory is taken after a small corpus was prepared, so
that what is left is what the awkward one costs.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from magicbert.config.roots import PrepareConfig
from magicbert.config.sections import CorpusSection, RunSection, ShardSection, TokenizerSection
from magicbert.data import plain_text
from magicbert.data.manifest import read_manifest
from magicbert.stages import prepare

WORDS = ["the", "old", "ship", "left", "harbour", "at", "dawn", "and", "sailed", "north"]


def peak_megabytes() -> float:
    """Returns the most memory this program has held; getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def prepared(folder: Path, root: Path, name: str) -> dict[str, object]:
    """Prepares one folder; returns what the manifest counts."""
    config = PrepareConfig(
        run=RunSection(root=str(root), name=name),
        corpus=CorpusSection(sources=(str(folder),), valid_fraction=0.3, on_bad_utf8="skip"),
        tokenizer=TokenizerSection(vocab_size=4000),
        shards=ShardSection(length=64, num_workers=1),
    )
    prepare.run(config)
    manifest = read_manifest(root / name / "prepare")
    skipped: dict[str, int] = {}
    for item in manifest.skipped:
        skipped[item.reason] = skipped.get(item.reason, 0) + item.count
    return {"kept": sum(manifest.num_documents.values()), "skipped": skipped}


def take_out(defence: str) -> None:
    """Removes one defence of the reader."""
    if defence == "bounded documents":
        plain_text.MAX_DOCUMENT_BYTES = 1 << 40
    elif defence == "counted encodings":
        plain_text.Skips.bad_utf8 = lambda self, where: None


def main() -> None:
    """Measures the base, then prepares the folder."""
    logging.getLogger("magicbert").setLevel(logging.ERROR)
    folder, root = Path(sys.argv[1]), Path(sys.argv[2])
    plain = root / "plain"
    plain.mkdir(parents=True)
    lines = [f"{word} {number} {word[::-1]}" for number in range(400) for word in WORDS]
    (plain / "a.txt").write_text("\n\n".join(lines))
    prepared(plain, root, "base")
    base = peak_megabytes()
    take_out(sys.argv[3] if len(sys.argv) > 3 else "")
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*.txt") if path.is_file())
    start = time.monotonic()
    found = prepared(folder, root, "awkward")
    seconds = time.monotonic() - start
    print(json.dumps({
        **found, "base": round(base), "over": round(peak_megabytes() - base),
        "seconds_per_megabyte": round(seconds / (num_bytes / 1e6), 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
