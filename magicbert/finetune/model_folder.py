"""What a model's files may ask for: checked before transformers opens any of them.

A model folder comes from anywhere. Its configuration may name code to run, files outside the
folder, or sizes that no machine has; its weights may be damaged. transformers notices part of it,
and part of that only after the fact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magicbert.bert.exported import MANIFEST, SCHEMA
from magicbert.bert.modeling.configuration_magicbert import (
    AUTO_MAP,
    CUSTOM_PIPELINES,
    MagicBertConfig,
)
from magicbert.errors import UserError
from magicbert.records import file_digest, read_record

MAX_JSON_BYTES = 64 << 20  # a tokenizer.json of 250,000 tokens has 17 MB
MAX_LAYERS = 1000
# A tensor that is not in the files may hold so many numbers: 256 MiB of fp32.
MAX_NEW_NUMBERS = 1 << 26
# What a result depends on; model cards, manifests and code are left out.
IDENTITY_FILES = (
    "config.json", "*.safetensors", "tokenizer*.json", "special_tokens_map.json", "vocab.*",
    "merges.txt", "*.model",
)  # fmt: skip
# Private fields that transformers itself writes.
OWN_FIELDS = {"_name_or_path", "_commit_hash", "_num_labels", "_attn_implementation_autoset"}
CODE_FIELDS = {"auto_map", "custom_pipelines", "trust_remote_code"}


def check_model_folder(name: str, folder: Path, *, trust_remote_code: bool) -> None:
    """Refuses what must not be loaded.

    Args:
        name: of the model, for messages.
        folder: holds ``config.json`` and what else there is.
        trust_remote_code: the user allows code that comes with the model.

    Raises:
        UserError: naming file, field and value.
    """
    config = read_json(folder / "config.json")
    if not trust_remote_code:
        for file in ("config.json", "tokenizer_config.json"):
            if (folder / file).is_file():
                check_code(name, file, read_json(folder / file))
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"{name}: holds an adapter, which names another model; merge it first")
    check_weight_index(folder)
    check_sizes(folder, config)
    if config.get("model_type") == MagicBertConfig.model_type or is_export(folder):
        check_export(folder)


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        UserError: it is missing, too large, or not one JSON object with each key once.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=distinct)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be loaded: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: cannot be loaded: not an object, got {type(value).__name__}")
    return value


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the pairs as a mapping; raises ``ValueError`` if a key is given twice."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return mapping


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields every key with its value, at any depth."""
    if isinstance(value, dict):
        yield from value.items()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from entries(item)


def check_code(name: str, file: str, tree: dict[str, Any]) -> None:
    """Raises `UserError` if a file asks for code other than that of this package."""
    for key, value in entries(tree):
        # An export's: its classes are registered here, its pipeline is not used.
        if key == "auto_map" and is_own(value):
            continue
        if (key, value) == ("custom_pipelines", CUSTOM_PIPELINES):
            continue
        is_hub_kernel = key.startswith("attn_implementation") and "/" in str(value)
        if key in CODE_FIELDS or is_hub_kernel:
            raise UserError(
                f"{name}: this model brings its own code; read it, then allow it with "
                f"--finetune.trust_remote_code true ({file}: {key})"
            )
        if key.startswith("_") and key not in OWN_FIELDS:
            raise UserError(f"{name}: {file}: private field {key!r}; remove it if it is not needed")


def is_own(auto_map: Any) -> bool:
    """Whether every class that an ``auto_map`` names is one of this package."""
    return isinstance(auto_map, dict) and auto_map.items() <= AUTO_MAP.items()


def check_weight_index(folder: Path) -> None:
    """Raises `UserError` if an index of weights names a file outside the folder."""
    for index in folder.glob("*.index.json"):
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise UserError(f"{index}: weight_map: must name the file of each tensor")
        for file in {str(value) for value in weight_map.values()}:
            if Path(file).name != file or not (folder / file).is_file():
                raise UserError(f"{index}: weight_map: {file[:200]!r} is not a file of this folder")


def check_sizes(folder: Path, config: dict[str, Any]) -> None:
    """Raises `UserError` if a size in the configuration cannot be that of the weights."""
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not num_bytes:  # not downloaded yet; a local folder without any is refused by the loader
        return
    limit = num_bytes + MAX_NEW_NUMBERS
    widths = [value for key, value in entries(config) if key in ("hidden_size", "d_model", "dim")]
    width = max((value for value in widths if type(value) is int), default=1)
    for key, value in entries(config):
        numbers = [value] if type(value) is int else []
        if key == "architecture" and isinstance(value, str):
            check_layers(folder, key, value.count("-") + 1)
            numbers = [int(digits[:20]) for digits in re.findall(r"\d+", value)]
        if key.endswith(("layers", "n_layer", "depth")) and type(value) is int:
            check_layers(folder, key, value)
        largest = max(map(abs, numbers), default=0)
        if largest * max(abs(width), 1) > limit:
            raise UserError(
                f"{folder / 'config.json'}: {key}: {str(largest)[:40]} x hidden size "
                f"{str(width)[:40]} is more than its weights hold"
            )


def check_layers(folder: Path, key: str, count: int) -> None:
    """Raises `UserError` if there are more layers than any encoder has."""
    if count > MAX_LAYERS:
        text = f"{str(count)[:40]} layers, at most {MAX_LAYERS}"
        raise UserError(f"{folder / 'config.json'}: {key}: {text}")


def is_export(folder: Path) -> bool:
    """Whether a folder has the manifest of an export, whatever its damaged files say."""
    manifest = folder / MANIFEST
    return manifest.is_file() and SCHEMA in manifest.read_text("utf-8", errors="replace")


def check_export(folder: Path) -> None:
    """Raises `UserError` if the files of an exported model are not those of its manifest."""
    if not (folder / MANIFEST).is_file():
        return
    known = read_record(folder / MANIFEST, SCHEMA)["files"]
    files = {path for pattern in IDENTITY_FILES for path in folder.glob(pattern)}
    for path in sorted(files):
        if known.get(path.name) != file_digest(path):
            raise UserError(f"{path}: damaged or changed since it was exported; export it again")
    for name in known:
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"{folder}: {name[:200]!r} is missing; export the model again")
