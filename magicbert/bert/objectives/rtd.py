"""Replaced-token detection (ELECTRA): which tokens are a generator's, told for every token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.data.batch import TokenBatch
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.supernet import Supernet, SupernetOutput


@dataclass(frozen=True, kw_only=True)
class CorruptedBatch(TokenBatch):
    """Rows whose masks a generator has filled; ``input_ids`` holds what it drew.

    Attributes:
        is_replaced: bool ``[rows, length]``; a token drawn as it was counts as original.
        generator_loss: summed cross-entropy of the masked tokens, with gradient while training.
        generator_correct: how many of them the generator would predict.
    """

    is_replaced: Tensor
    generator_loss: Tensor
    generator_correct: Tensor

    def to(self, device: torch.device) -> CorruptedBatch:
        """Returns the batch on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


class ReplacedTokenDetection(Objective):
    """ELECTRA's joint objective (3.1): the generator's MLM loss plus the weighted detection loss.

    Paths are scored by the detection loss, a mean over the tokens that are not padding; the
    generator's loss is a mean over the masked tokens. While the supernet trains, the generator's
    draws come from torch's generator, which the loop seeds by step; elsewhere they depend on the
    rows alone, so that a score is the same every time.

    Args:
        weight: of the detection loss; ELECTRA takes 50.
    """

    logged = (
        "correct", "tokens", "replaced", "flagged", "caught",
        "generator_loss", "generator_correct", "masked",
    )  # fmt: skip

    def __init__(self, weight: float = 50.0) -> None:
        self.weight = weight

    def count(self, batch: TokenBatch) -> int:
        """Returns the number of positions that are not padding: each of them is judged."""
        return self.num_tokens(batch)

    def num_tokens(self, batch: TokenBatch) -> int:
        """Returns the number of positions that are not padding."""
        assert batch.layout is not None, "a batch without values has no tokens to count"
        return batch.layout.num_tokens

    def num_auxiliary(self, batch: TokenBatch) -> int:
        """Returns the number of masked positions: the terms of the generator's loss."""
        return len(batch.predicted_positions)

    def prepare(self, supernet: Supernet, batch: TokenBatch) -> CorruptedBatch:
        """Runs the generator once and puts its draws where the masks were."""
        if isinstance(batch, CorruptedBatch):
            return batch
        electra = cast(ElectraSupernet, supernet)
        filled = electra.fill(batch)
        loss, correct = electra.filling_loss(filled, batch.labels)
        is_random = supernet.training and torch.is_grad_enabled()
        noise = None if is_random else fixed_noise(batch.sample_ids, filled.device)
        return corrupted(batch, electra.sample(filled, noise), loss, correct)

    def read_loss(
        self, supernet: Supernet, batch: CorruptedBatch, output: SupernetOutput
    ) -> LossOutput:
        """Returns the detection loss, with the generator's beside it."""
        logits = cast(ElectraSupernet, supernet).detect(output.hidden).float()
        replaced = batch.is_replaced
        losses = F.binary_cross_entropy_with_logits(logits, replaced.float(), reduction="none")
        flagged, right = logits > 0, (logits > 0) == replaced
        if output.valid is not None:
            losses = losses.masked_fill(~output.valid, 0.0)
            flagged, right = flagged & output.valid, right & output.valid
        count, masked = self.count(batch), self.num_auxiliary(batch)
        metrics = {
            "correct": right.sum(),
            "tokens": logits.new_tensor(count),
            "replaced": replaced.sum(),
            "flagged": flagged.sum(),
            "caught": (flagged & replaced).sum(),
            "generator_loss": batch.generator_loss.detach(),
            "generator_correct": batch.generator_correct,
            "masked": logits.new_tensor(masked),
        }
        return LossOutput(losses.sum(), count, output, metrics, self.weight, batch.generator_loss)

    def rates(self, sums: Mapping[str, float]) -> dict[str, float | None]:
        """Returns how well both networks do; ``None`` where there is nothing to divide by."""

        def share(part: str, whole: str) -> float | None:
            return sums[part] / sums[whole] if sums[whole] else None

        return {
            "discriminator_accuracy": share("correct", "tokens"),
            "discriminator_precision": share("caught", "flagged"),
            "discriminator_recall": share("caught", "replaced"),
            "replaced_share": share("replaced", "tokens"),
            "generator_loss": share("generator_loss", "masked"),
            "generator_accuracy": share("generator_correct", "masked"),
        }


def corrupted(
    batch: TokenBatch, drawn: Tensor, generator_loss: Tensor, generator_correct: Tensor
) -> CorruptedBatch:
    """Returns the batch with drawn tokens in place of the masked ones.

    Args:
        batch: masked rows.
        drawn: int64 ``[M]``, for the predicted positions.
        generator_loss: of these positions.
        generator_correct: of these positions.
    """
    positions, shape = batch.predicted_positions, batch.input_ids.shape
    ids = batch.input_ids.flatten().index_copy(0, positions, drawn).view(shape)
    none = torch.zeros_like(batch.input_ids, dtype=torch.bool).flatten()
    is_replaced = none.index_copy(0, positions, drawn != batch.labels).view(shape)
    given = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return CorruptedBatch(
        **{**given, "input_ids": ids},
        is_replaced=is_replaced,
        generator_loss=generator_loss,
        generator_correct=generator_correct,
    )


def fixed_noise(sample_ids: tuple[int, ...], device: torch.device) -> torch.Generator:
    """Returns a random generator that is a function of the rows of a batch alone."""
    digest = hashlib.sha256(repr(sample_ids).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8]) >> 1)
