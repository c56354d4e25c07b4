"""The files of a checkpoint: found in a folder or on the hub, read as numbers and nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from magicbert.errors import UserError

CONFIG = "config.json"
# In the order of preference; an index names the files of a checkpoint in several parts.
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
MAX_JSON_BYTES = 64 << 20
# Names of norms in checkpoints that were converted from TensorFlow.
LEGACY = {".gamma": ".weight", ".beta": ".bias"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it lies on the disk.

    Attributes:
        name: as the user gave it.
        folder: holds its files.
        config: content of ``config.json``.
        weights: fp32 tensors by their names in the checkpoint.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]


def read_checkpoint(source: str) -> Checkpoint:
    """Reads a folder, or a model of the hub, which is downloaded unless it lies in the cache.

    Raises:
        UserError: there is no such model, or a file is missing or damaged.
    """
    if os.path.isdir(source):
        folder = Path(source)
        found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    else:
        folder = downloaded(source, CONFIG).parent
        found = downloaded_weights(source)
    if found is None:
        raise UserError(f"{source}: no weights: none of {', '.join(WEIGHTS)} is there")
    return Checkpoint(source, folder, read_object(folder / CONFIG), read_weights(found))


def downloaded(source: str, name: str) -> Path:
    """Returns a file of a model on the hub.

    Raises:
        UserError: it cannot be had; a path that does not exist ends here too.
    """
    from transformers.utils import cached_file

    try:
        return Path(cached_file(source, name))
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())[:400]
        raise UserError(
            f"{source}: no such folder here, and as a model of the hub: {text}"
        ) from error


def downloaded_weights(source: str) -> Path | None:
    """Returns the weights of a model on the hub, every part of them downloaded."""
    from transformers.utils import cached_file

    for name in WEIGHTS:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        if found is None:
            continue
        for part in parts_of(Path(found)) if name.endswith(".json") else ():
            downloaded(source, part.name)
        return Path(found)
    return None


def read_object(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        UserError: it is missing, too large, or something else.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not an object, got {type(value).__name__}")
    return value


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of one file, or of all the files of an index.

    Raises:
        UserError: a file is missing or damaged, or holds something else than tensors.
    """
    paths = parts_of(path) if path.suffix == ".json" else [path]
    weights: dict[str, Tensor] = {}
    for part in paths:
        weights |= {modern(name): value for name, value in read_tensors(part).items()}
    return weights


def parts_of(index: Path) -> list[Path]:
    """Returns the files that an index names, which must lie beside it."""
    weight_map = read_object(index).get("weight_map")
    names = sorted({str(value) for value in weight_map.values()}) if weight_map else []
    outside = [name for name in names if Path(name).name != name]
    if not names or outside:
        raise UserError(f"{index}: weight_map: must name files of this folder, got {outside[:1]}")
    return [index.parent / name for name in names]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the floating-point tensors of one file, in fp32."""
    try:
        if path.suffix == ".safetensors":
            values = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {str(error)[:400]}") from error
    except Exception as error:  # pickle.UnpicklingError among others: it holds more than tensors
        raise UserError(
            f"{path}: refused: it holds more than tensors, or is damaged; save the model again "
            "as safetensors"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no tensors by name")
    return {
        str(name): value.float()
        for name, value in values.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


def modern(name: str) -> str:
    """Returns a tensor's name as transformers writes it today."""
    for old, new in LEGACY.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
