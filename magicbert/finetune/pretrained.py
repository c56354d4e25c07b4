"""The model that fine-tuning starts from: found, identified, loaded with a new head.

A model of ours is loaded with this package's own classes, so an exported folder runs no code
of its own. Weights are read from safetensors only.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.roots import FinetuneConfig
from magicbert.errors import UserError
from magicbert.finetune.model_folder import IDENTITY_FILES, check_model_folder
from magicbert.finetune.tasks import Task
from magicbert.records import digest_of, file_digest
from magicbert.trail import stage_folder


@dataclass(frozen=True)
class Pretrained:
    """A model to start from.

    Attributes:
        name: as the user knows it.
        source: folder or hub id.
        identity: digest of its files, or the hub's commit.
        architecture: of a magicbert model; ``None`` for others.
        max_positions: longest row it can read.
        vocab_size: rows of its embedding table; 0 if it does not say.
        pad_token_id: of padding; ``None`` if it does not say.
        trust_remote_code: run code that comes with it.
    """

    name: str
    source: str
    identity: str
    architecture: str | None
    max_positions: int
    vocab_size: int
    pad_token_id: int | None
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
    folder = Path(source) if os.path.isdir(source) else downloaded_folder(source)
    check_model_folder(name, folder, trust_remote_code=trust_remote_code)
    try:
        config = transformers.AutoConfig.from_pretrained(
            source, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # from the format to the classes, transformers raises many kinds
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
        vocab_size=int(getattr(config, "vocab_size", 0) or 0),
        pad_token_id=getattr(config, "pad_token_id", None),
        trust_remote_code=trust_remote_code,
    )


def downloaded_folder(source: str) -> Path:
    """Returns the folder of the hub's cache that now holds the configuration of a model."""
    from transformers.utils import cached_file

    try:
        return Path(cached_file(source, "config.json")).parent
    except (OSError, ValueError) as error:
        raise cannot_load(source, error) from error


def register_magicbert() -> None:
    """Tells transformers the classes of our model type."""
    import transformers

    from magicbert.bert import modeling
    from magicbert.bert.modeling.configuration_magicbert import AUTO_MAP, MagicBertConfig

    transformers.AutoConfig.register(MagicBertConfig.model_type, MagicBertConfig, exist_ok=True)
    for loader, target in AUTO_MAP.items():
        if loader != "AutoConfig":
            module, name = target.split(".")
            model = getattr(importlib.import_module(f"{modeling.__name__}.{module}"), name)
            getattr(transformers, loader).register(MagicBertConfig, model, exist_ok=True)


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
    except Exception as error:  # the tokenizers package raises plain Exception
        raise cannot_load(start.name, error) from error
    if tokenizer.pad_token_id is None:
        raise UserError(f"{start.name}: its tokenizer has no padding token")
    check_vocabulary(start, tokenizer)
    return tokenizer


def check_vocabulary(start: Pretrained, tokenizer: Any) -> None:
    """Raises `UserError` if the tokenizer is not the one that the model was trained with."""
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if start.vocab_size and highest >= start.vocab_size:
        raise UserError(
            f"{start.name}: its tokenizer has token {highest}, but the model has "
            f"{start.vocab_size} embeddings: they do not belong together"
        )
    if start.pad_token_id not in (None, tokenizer.pad_token_id):
        raise UserError(
            f"{start.name}: config.json says pad_token_id {start.pad_token_id}, its tokenizer "
            f"{tokenizer.pad_token_id}: they do not belong together"
        )


def load_classifier(start: Pretrained, task: Task, weights: str = "") -> Any:
    """Returns the model with a new head for a task, in fp32.

    The head is drawn from torch's global generator: seed it first.

    Args:
        start: the model.
        task: gives the width and the loss of the head.
        weights: folder to load instead of the model's own weights (MNLI warm start).
    """
    import transformers

    names = task.labels or (task.label,)
    return load_with_head(
        transformers.AutoModelForSequenceClassification, start, weights,
        num_labels=task.num_outputs,
        id2label=dict(enumerate(names)),
        label2id={name: position for position, name in enumerate(names)},
        problem_type="regression" if task.is_regression else "single_label_classification",
    )  # fmt: skip


def load_answerer(start: Pretrained, weights: str = "") -> Any:
    """Returns the model with the two ends of an answer on top, in fp32.

    A head that was fine-tuned on questions is kept; a new one is drawn from torch's global
    generator: seed it first.

    Args:
        start: the model.
        weights: folder to load instead of the model's own weights (warm start).
    """
    import transformers

    return load_with_head(transformers.AutoModelForQuestionAnswering, start, weights)


def load_with_head(auto_class: Any, start: Pretrained, weights: str, **options: Any) -> Any:
    """Returns a model of one of transformers' kinds.

    Raises:
        UserError: it cannot be loaded, or its files lack weights of the encoder.
    """
    options["ignore_mismatched_sizes"] = True
    model, found = load_reporting(auto_class, start, weights or start.source, **options)
    check_encoder(start.name, model.base_model_prefix, found)
    return model


def load_reporting(
    auto_class: Any, start: Pretrained, source: str, **options: Any
) -> tuple[Any, Mapping[str, Any]]:
    """Returns a model in fp32, from safetensors, and what transformers reports of its loading.

    Raises:
        UserError: it cannot be loaded.
    """
    import torch

    try:
        model, found = auto_class.from_pretrained(
            source,
            trust_remote_code=start.trust_remote_code,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # from damaged files to classes that do not fit
        raise cannot_load(start.name, error) from error
    return model, found


def check_encoder(name: str, prefix: str, found: Mapping[str, Any]) -> None:
    """Raises `UserError` if weights of the encoder were not in the files.

    transformers fills them with noise and goes on; only heads and poolers may be new.

    Args:
        name: of the model.
        prefix: of the encoder's names.
        found: ``missing_keys`` and ``mismatched_keys`` of transformers.
    """
    mismatched = {
        str(key[0] if isinstance(key, tuple) else key) for key in found["mismatched_keys"]
    }
    new = {str(key) for key in found["missing_keys"]} | mismatched
    lost = sorted(key for key in new if key.startswith(f"{prefix}.") and "pooler" not in key)
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UserError(
            f"{name}: cannot be loaded: its files lack {', '.join(lost[:3])}{more}, "
            "or hold them in another shape"
        )


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
