"""The manifest of an exported folder: the sha256 of every file, checked before one is used."""

from __future__ import annotations

from pathlib import Path

from magicbert.bert import modeling
from magicbert.errors import UserError
from magicbert.records import file_digest, read_record

SCHEMA = "magicbert/export/1"
MANIFEST = "manifest.json"
CARD = "README.md"


def digests(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file of a flat folder except its manifest."""
    return {
        path.name: file_digest(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST
    }


def modeling_files() -> list[Path]:
    """Returns the files of the flat modelling folder that an export holds byte for byte."""
    source = Path(modeling.__file__).parent
    return sorted(path for path in source.glob("*.py") if path.name != "__init__.py")


def verify_export(folder: Path) -> None:
    """Raises `UserError` that names every file which is missing, changed or not in the manifest."""
    expected = read_record(folder / MANIFEST, SCHEMA)["files"]
    found = digests(folder)
    wrong = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if wrong:
        raise UserError(f"{folder}: does not match its {MANIFEST}: {', '.join(wrong)}")
