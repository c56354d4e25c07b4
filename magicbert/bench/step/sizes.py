"""Sizes of the models and batches of ``bench step``, by device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.config.sections import StepBenchSection
from magicbert.errors import UserError

VOCAB_SIZE = 30522
DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A BERT, or a supernet of its width.

    Attributes:
        name: as in the table.
        num_layers: layers of attention and feed-forward; a supernet has one operator per layer,
            hence twice as many.
        hidden_size: width.
        num_heads: of the attention.
    """

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int

    def config(self, max_length: int) -> MagicBertConfig:
        """Returns the sizes of magicbert's encoder."""
        return MagicBertConfig(
            architecture="",
            vocab_size=VOCAB_SIZE,
            hidden_size=self.hidden_size,
            max_position_embeddings=max_length,
            hidden_dropout_prob=DROPOUT,
            attention_probs_dropout_prob=DROPOUT,
        )


MODELS = {
    size.name: size
    for size in (
        ModelSize("tiny", 1, 64, 2),
        ModelSize("L4 H256", 4, 256, 4),
        ModelSize("base", 12, 768, 12),
        ModelSize("large", 24, 1024, 16),
    )
}


@dataclass(frozen=True, slots=True)
class StepSize:
    """One size of a case.

    Attributes:
        model: the model.
        rows: of the batch, if every row is full.
        length: of a row.
        precision: type that matrix products are done in.
    """

    model: ModelSize
    rows: int
    length: int
    precision: torch.dtype

    @property
    def variant(self) -> dict[str, int | str]:
        """Columns of the table."""
        return {
            "model": self.model.name,
            "rows": self.rows,
            "length": self.length,
            "type": str(self.precision).removeprefix("torch."),
        }


def step_size(name: str, length: int, setting: StepBenchSection, device: torch.device) -> StepSize:
    """Returns a size with what the setting leaves open filled in.

    Args:
        name: of the model.
        length: of a row.
        setting: the user's.
        device: where the step runs.

    Raises:
        UserError: there is no such model.
    """
    if name not in MODELS:
        raise UserError(f"step.models: {name!r} is not one of {', '.join(MODELS)}")
    tokens = setting.tokens or (65536 if device.type == "cuda" else 2048)
    return StepSize(
        MODELS[name], max(tokens // length, 1), length, precision_on(device, setting.precision)
    )


def precision_on(device: torch.device, asked: str) -> torch.dtype:
    """Returns the type of the matrix products: bf16 where the device has it in hardware."""
    if asked != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[asked]
    has_bf16 = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
