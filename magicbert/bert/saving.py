"""A supernet on disk: ``model.safetensors`` and ``supernet.json``."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from magicbert.bert.atomic_folder import atomic_folder
from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.generator import GeneratorSizes
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.supernet import BertSupernet, EncoderSupernet
from magicbert.errors import UserError
from magicbert.records import file_digest, read_record, write_record
from magicbert.space import SearchSpace

SCHEMA = "magicbert/supernet/1"
WEIGHTS = "model.safetensors"
RECORD = "supernet.json"
CONFIG_FIELDS = (
    "vocab_size", "hidden_size", "embedding_size", "max_position_embeddings",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps",
    "pad_token_id",
)  # fmt: skip


def save_supernet(folder: Path, supernet: EncoderSupernet, details: dict[str, Any]) -> None:
    """Writes a supernet, atomically; an older one in the folder is replaced.

    Args:
        folder: folder to write; holds nothing else.
        supernet: weights are written as fp32, whatever they are in memory.
        details: JSON data of the caller, given back by `load_supernet`.
    """
    weights = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in supernet.kept_state().items()
    }
    with atomic_folder(folder) as aside:
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        record = {
            "space": supernet.space.to_json(),
            "config": {name: getattr(supernet.config, name) for name in CONFIG_FIELDS},
            "generator": generator_of(supernet),
            "weights_sha256": file_digest(aside / WEIGHTS),
            "details": details,
        }
        write_record(aside / RECORD, SCHEMA, record)
        # safetensors writes for the owner alone; both files get the usual mode.
        shutil.copymode(aside / RECORD, aside / WEIGHTS)


def load_supernet(folder: Path) -> tuple[EncoderSupernet, dict[str, Any]]:
    """Reads what `save_supernet` wrote.

    Returns:
        The supernet, fp32 on the CPU and in evaluation mode, and the caller's details.

    Raises:
        UserError: a file is missing, damaged, or does not belong to the other.
    """
    record = read_record(folder / RECORD, SCHEMA)
    weights = folder / WEIGHTS
    if not weights.is_file() or file_digest(weights) != record["weights_sha256"]:
        raise UserError(f"{weights}: missing, damaged, or not the weights that {RECORD} describes")
    with torch.device("meta"):
        config = MagicBertConfig(architecture="", **record["config"])
        supernet = described(record, config)
    try:
        supernet.load_state_dict(load_file(weights), assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{weights}: does not fit {RECORD}: {error}") from error
    return supernet.eval(), record["details"]


def generator_of(supernet: EncoderSupernet) -> dict[str, int] | None:
    """Returns the sizes of the generator beside the paths; ``None`` = there is none."""
    if not isinstance(supernet, ElectraSupernet):
        return None
    return dataclasses.asdict(supernet.sizes)


def described(record: dict[str, Any], config: MagicBertConfig) -> EncoderSupernet:
    """Returns a supernet of the kind and sizes that a record describes."""
    space, sizes = SearchSpace.from_json(record["space"]), record.get("generator")
    if sizes is None:
        return BertSupernet(space, config, seed=0)
    return ElectraSupernet(space, config, 0, GeneratorSizes(**sizes))
