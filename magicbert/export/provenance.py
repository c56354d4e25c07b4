"""Where an exported model comes from: what its run left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert import __version__
from magicbert.config.yaml_text import parse_yaml
from magicbert.data.manifest import Manifest
from magicbert.records import digest_of, read_record

RESULT_SCHEMA = "magicbert/training-result/1"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What stands behind a model.

    Attributes:
        stage: folder name of the training stage, such as ``retrain``.
        config_digest: digest of the stage's resolved configuration; empty if there is none.
        data_digest: digest of the prepared data.
        tokenizer_digest: digest of the tokenizer.
        commit: commit that trained the model; empty if it is not known.
        version: of magicbert, at export.
        packages: versions that trained the model.
        result: the stage's ``result.json``; empty if it is not finished.
    """

    stage: str
    config_digest: str
    data_digest: str
    tokenizer_digest: str
    commit: str
    version: str
    packages: dict[str, str]
    result: dict[str, Any]


def read_provenance(stage: Path, manifest: Manifest) -> Provenance:
    """Reads the trail of the stage that trained the model.

    Args:
        stage: its folder.
        manifest: of the prepared data.

    Raises:
        UserError: ``result.json`` is there and damaged.
    """
    environment = read_json(stage / "environment.json")
    config = stage / "config.yaml"
    result = stage / "result.json"
    return Provenance(
        stage=stage.name,
        config_digest=digest_of(parse_yaml(config.read_text("utf-8"))) if config.is_file() else "",
        data_digest=manifest.digest,
        tokenizer_digest=manifest.tokenizer_digest,
        commit=environment.get("commit") or "",
        version=__version__,
        packages={
            name: version for name, version in environment.get("packages", {}).items() if version
        },
        result=read_record(result, RESULT_SCHEMA) if result.is_file() else {},
    )


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON object, or an empty one if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
