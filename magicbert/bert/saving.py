"""A supernet on disk: ``model.safetensors`` and ``supernet.json``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from magicbert.bert.atomic_folder import atomic_folder
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.supernet import BertSupernet
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


def save_supernet(folder: Path, supernet: BertSupernet, details: dict[str, Any]) -> None:
    """Writes a supernet, atomically; an older one in the folder is replaced.

    Args:
        folder: folder to write; holds nothing else.
        supernet: weights are written as fp32, whatever they are in memory.
        details: JSON data of the caller, given back by `load_supernet`.
    """
    weights = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in supernet.state_dict().items()
    }
    with atomic_folder(folder) as aside:
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        record = {
            "space": supernet.space.to_json(),
            "config": {name: getattr(supernet.config, name) for name in CONFIG_FIELDS},
            "weights_sha256": file_digest(aside / WEIGHTS),
            "details": details,
        }
        write_record(aside / RECORD, SCHEMA, record)
        # safetensors writes for the owner alone; both files get the usual mode.
        shutil.copymode(aside / RECORD, aside / WEIGHTS)


def load_supernet(folder: Path) -> tuple[BertSupernet, dict[str, Any]]:
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
        supernet = BertSupernet(SearchSpace.from_json(record["space"]), config, seed=0)
    try:
        supernet.load_state_dict(load_file(weights), assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{weights}: does not fit {RECORD}: {error}") from error
    return supernet.eval(), record["details"]
