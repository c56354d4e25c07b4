"""A model that is there, loaded with the head that it has, to be run and not to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from magicbert.errors import UserError
from magicbert.export.heads import Head, head_of
from magicbert.export.onnx_graph import graph_inputs
from magicbert.finetune.pretrained import (
    Pretrained,
    describe_pretrained,
    downloaded_folder,
    load_reporting,
    load_tokenizer,
)


@dataclass(frozen=True)
class Runnable:
    """A model in evaluation mode.

    Attributes:
        start: what is known of it.
        folder: of its files.
        model: fp32, on the CPU.
        head: what it gives.
        tokenizer: its own.
        inputs: names of what it is called with.
    """

    start: Pretrained
    folder: Path
    model: nn.Module
    head: Head
    tokenizer: Any
    inputs: tuple[str, ...]

    @property
    def longest(self) -> int:
        """Most tokens of a row that it reads."""
        return min(self.start.max_positions or 512, int(self.tokenizer.model_max_length))


def load_runnable(source: str, *, name: str = "", trust_remote_code: bool = False) -> Runnable:
    """Loads a model with the head that ``config.json`` names.

    Raises:
        UserError: it cannot be loaded, has no known head, or its head was never trained.
    """
    start = describe_pretrained(name or source, source, trust_remote_code)
    folder = Path(source) if Path(source).is_dir() else downloaded_folder(source)
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    head = head_of(start.name, config.architectures)
    tokenizer = load_tokenizer(start)
    model, found = load_reporting(getattr(transformers, head.loader), start, source)
    check_complete(start.name, found)
    inputs = graph_inputs(tokenizer.model_input_names, getattr(config, "type_vocab_size", 0) or 0)
    return Runnable(start, folder, model.eval(), head, tokenizer, inputs)


def check_complete(name: str, found: Mapping[str, Any]) -> None:
    """Raises `UserError` if transformers had to fill weights with noise."""
    lost = sorted(map(str, (*found["missing_keys"], *found["mismatched_keys"])))
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UserError(f"{name}: its files lack {', '.join(lost[:3])}{more}")
