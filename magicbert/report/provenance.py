"""What stands behind each number: configuration, data, versions, commit and digests."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

from magicbert.config.yaml_text import dump_yaml
from magicbert.report.reading import RunRecords, StageRecord
from magicbert.report.section import Section, paragraph
from magicbert.report.tables import Mark, table

SHORT = 12  # characters of a digest or commit that are shown


def provenance_section(run: RunRecords) -> Section:
    """One row per stage, and its resolved configuration to unfold."""
    records = run.all()
    if not records:
        return Section("provenance", "Provenance")
    head = ("stage", "result", "commit", "Python", "machine")
    rows = [
        [record.folder_name, _code(record.digest), _commit(record.environment),
         record.environment.get("python") or "–", _machine(record.environment)]
        for record in records
    ]  # fmt: skip
    parts = [table(head, rows, caption="The result is named by the sha256 of its record.")]
    parts += [paragraph(text) for text in _versions(records)]
    parts += [_config(record) for record in records if record.config]
    return Section("provenance", "Provenance", tuple(parts))


def _commit(environment: dict[str, Any]) -> Mark:
    commit = environment.get("commit") or ""
    changed = " with changes" if commit.endswith("-dirty") else ""
    return Mark(f"{_code(commit).text}{changed}", is_number=False)


def _machine(environment: dict[str, Any]) -> str:
    if "system" not in environment:
        return "–"
    return f"{environment['system']}, {environment['processors']} processors"


def _versions(records: Sequence[StageRecord]) -> Iterator[str]:
    """Yields one sentence per distinct set of versions, with the stages that ran on it."""
    stages: dict[str, list[str]] = {}
    for record in records:
        packages = record.environment.get("packages")
        if packages:
            own = {"magicbert": record.environment.get("magicbert"), **packages}
            text = ", ".join(f"{name} {version}" for name, version in own.items() if version)
            stages.setdefault(text, []).append(record.folder_name)
    for text, names in stages.items():
        where = "Versions" if len(stages) == 1 else f"Versions of {', '.join(names)}"
        yield f"{where}: {text}."


def _code(text: str) -> Mark:
    return Mark(f"<code>{html.escape(text[:SHORT])}</code>" if text else "–", is_number=False)


def _config(record: StageRecord) -> str:
    text = html.escape(dump_yaml(record.config))
    name = html.escape(record.folder_name)
    return f"<details><summary>Configuration of {name}</summary><pre>{text}</pre></details>"
