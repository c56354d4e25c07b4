"""Is a folder already what a configuration asks for?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from magicbert.config.roots import PrepareConfig
from magicbert.data.manifest import FILE_NAME, Manifest, read_manifest
from magicbert.data.preparation import settings_of
from magicbert.data.sources import CorpusUnit
from magicbert.data.verification import verify_prepared
from magicbert.errors import UserError


def find_prepared(
    config: PrepareConfig, folder: Path, units: Sequence[CorpusUnit]
) -> Manifest | None:
    """Returns the manifest of a folder that is already prepared as asked, ``None`` without one.

    Args:
        config: what is asked for.
        folder: the prepare folder of the run.
        units: what would be read, valid units first.

    Raises:
        UserError: it was prepared from other settings or sources, or it is damaged. It is never
            overwritten: models of this run may have been trained on it.
    """
    if not (folder / FILE_NAME).exists():
        return None
    manifest = read_manifest(folder)
    verify_prepared(folder, manifest)
    differences = [
        *_setting_differences(manifest.settings, settings_of(config)),
        *_source_differences(manifest, units, is_bounded=config.corpus.max_documents > 0),
    ]
    if differences:
        lines = "\n".join(f"  - {difference}" for difference in differences)
        raise UserError(
            f"{folder}: already prepared otherwise; remove this folder or choose another "
            f"run.name\n{lines}"
        )
    return manifest


def _setting_differences(found: Any, asked: Any, path: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(asked, dict):
        for name in sorted({*found, *asked}):
            inner = f"{path}.{name}" if path else name
            yield from _setting_differences(found.get(name), asked.get(name), inner)
    elif found != asked:
        yield f"{path}: prepared with {found!r}, asked for {asked!r}"


def _source_differences(
    manifest: Manifest, units: Sequence[CorpusUnit], *, is_bounded: bool
) -> Iterator[str]:
    """Yields sources that changed; a bounded preparation did not read them all."""
    known = {source["name"]: source for source in manifest.sources}
    names = {unit.name for unit in units}
    for name in known:
        if name not in names:
            yield f"{name}: no longer there"
    for unit in units:
        if unit.name not in known:
            if not is_bounded:
                yield f"{unit.name}: new"
        elif _content(unit.identity(known[unit.name])) != _content(known[unit.name]):
            yield f"{unit.name}: changed since"


def _content(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != "modified_nanoseconds"}
