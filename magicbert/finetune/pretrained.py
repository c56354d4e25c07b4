"""The model that fine-tuning starts from: found, identified, loaded with a new head.

A model of ours is loaded with this package's own classes, so an exported folder runs no code
of its own. Weights are read from safetensors only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.roots import FinetuneConfig
from magicbert.errors import UserError
from magicbert.finetune.tasks import Task
from magicbert.records import digest_of, file_digest
from magicbert.trail import stage_folder

# What a result depends on; model cards and manifests are left out.
IDENTITY_FILES = (
    "config.json", "*.safetensors", "tokenizer*.json", "special_tokens_map.json", "vocab.*",
    "merges.txt", "*.model",
)  # fmt: skip


@dataclass(frozen=True)
class Pretrained:
    """A model to start from.

    Attributes:
        name: as the user knows it.
        source: folder or hub id.
        identity: digest of its files, or the hub's commit.
        architecture: of a magicbert model; ``None`` for others.
        max_positions: longest row it can read.
        trust_remote_code: run code that comes with it.
    """

    name: str
    source: str
    identity: str
    architecture: str | None
    max_positions: int
    trust_remote_code: bool


def find_pretrained(config: FinetuneConfig) -> Pretrained:
    """Returns the model that the configuration names, or the run's own export.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    settings = config.finetune
    if settings.model:
        return describe_pretrained(settings.model, settings.model, settings.trust_remote_code)
    export = stage_folder(config.run, "export")
    if not (export / "config.json").is_file():
        raise UserError(
            f"{export}: no exported model; run `magicbert export` first, or give --model"
        )
    return describe_pretrained(export.name, str(export), trust_remote_code=False)


def describe_pretrained(name: str, source: str, trust_remote_code: bool) -> Pretrained:
    """Reads the configuration of a model and digests its files."""
    import transformers

    register_magicbert()
    try:
        config = transformers.AutoConfig.from_pretrained(
            source, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise cannot_load(name, error) from error
    folder = Path(source)
    if folder.is_dir():
        identity = folder_identity(folder, with_code=trust_remote_code)
    else:
        identity = f"{source}@{config._commit_hash}"
    architecture = getattr(config, "architecture", None)
    return Pretrained(
        name=name,
        source=source,
        identity=identity,
        architecture=architecture if isinstance(architecture, str) else None,
        max_positions=int(getattr(config, "max_position_embeddings", 0) or 0),
        trust_remote_code=trust_remote_code,
    )


def register_magicbert() -> None:
    """Tells transformers the classes of our model type."""
    import transformers

    from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
    from magicbert.bert.modeling.modeling_magicbert import MagicBertForSequenceClassification

    transformers.AutoConfig.register(MagicBertConfig.model_type, MagicBertConfig, exist_ok=True)
    transformers.AutoModelForSequenceClassification.register(
        MagicBertConfig, MagicBertForSequenceClassification, exist_ok=True
    )


def folder_identity(folder: Path, *, with_code: bool = False) -> str:
    """Returns the digest of weights, configuration, tokenizer and code in a folder."""
    patterns = (*IDENTITY_FILES, "*.py") if with_code else IDENTITY_FILES
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return digest_of([[path.name, file_digest(path)] for path in files])


def load_tokenizer(start: Pretrained) -> Any:
    """Returns the tokenizer that comes with a model.

    Raises:
        UserError: there is none, or it has no padding token.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            start.source, trust_remote_code=start.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise cannot_load(start.name, error) from error
    if tokenizer.pad_token_id is None:
        raise UserError(f"{start.name}: its tokenizer has no padding token")
    return tokenizer


def load_classifier(start: Pretrained, task: Task, weights: str = "") -> Any:
    """Returns the model with a new head for a task, in fp32.

    The head is drawn from torch's global generator: seed it first.

    Args:
        start: the model.
        task: gives the width and the loss of the head.
        weights: folder to load instead of the model's own weights (MNLI warm start).
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    names = task.labels or (task.label,)
    try:
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            weights or start.source,
            trust_remote_code=start.trust_remote_code,
            num_labels=task.num_outputs,
            id2label=dict(enumerate(names)),
            label2id={name: position for position, name in enumerate(names)},
            problem_type="regression" if task.is_regression else "single_label_classification",
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise cannot_load(start.name, error) from error


def cannot_load(name: str, error: Exception) -> UserError:
    """Returns the user's form of an error from transformers."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text or "custom code" in text:
        return UserError(
            f"{name}: this model brings its own code; read it, then allow it with "
            "--finetune.trust_remote_code true"
        )
    here = "" if os.path.isdir(name) else " (no such folder here; tried as a hub id)"
    return UserError(f"{name}{here}: cannot be loaded by transformers: {text[:400]}")
