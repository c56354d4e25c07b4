"""The loss of a student that has a fine-tuned teacher beside the labels (NAS-BERT 3.4).

``(1 - l) labels + l teacher``. The teacher's part is ``T^2 KL(teacher || student)`` of classes, the
mean of it for both ends of an answer, or the squared error to the score that the teacher gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from magicbert.bert.objectives.distillation import divergence_sum

Batch = Mapping[str, Tensor]
# Ahead of the name of an output: the column of a row that holds the teacher's.
TEACHER = "teacher_"


@dataclass(frozen=True)
class Lesson:
    """How a student learns from the teacher's columns of its rows.

    Attributes:
        error: mean over the rows of a batch of what separates the student's outputs from the
            teacher's, given both, the batch and the temperature.
        weight: l, the share of the teacher in the loss.
        temperature: T, what logits are divided by.
    """

    error: Callable[[Batch, Batch, Batch, float], Tensor]
    weight: float
    temperature: float


class DistillingTrainer(transformers.Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer, with a teacher's columns in the batches that it trains on.

    Args:
        lesson: how to learn from them; ``None`` = there are none.
        options: of the Trainer.
    """

    def __init__(self, lesson: Lesson | None, **options: Any) -> None:
        super().__init__(**options)
        self.lesson = lesson

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
    ) -> Any:
        """Returns the loss, with the model's outputs if they are asked for."""
        names = [name for name in inputs if name.startswith(TEACHER)]
        taught = {name.removeprefix(TEACHER): inputs.pop(name) for name in names}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if self.lesson is not None and taught:
            weight = self.lesson.weight
            error = self.lesson.error(outputs, taught, inputs, self.lesson.temperature)
            loss = (1 - weight) * loss + weight * error
        return (loss, outputs) if return_outputs else loss


@dataclass(frozen=True)
class TaughtPadding:
    """Collates rows as another padding does, and the teacher's columns beside them."""

    padding: Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns one batch; columns with an entry per token are padded by zeros."""
        batch = self.padding(rows)
        for name in rows[0]:
            if name.startswith(TEACHER):
                batch[name] = pad_sequence([row[name] for row in rows], batch_first=True)
        return batch


def class_error(outputs: Batch, taught: Batch, batch: Batch, temperature: float) -> Tensor:
    """Returns ``T^2 KL`` of the classes; logits are ``[rows, classes]``."""
    logits = outputs["logits"].float()
    return divergence_sum(logits, taught["logits"], temperature) / len(logits)


def score_error(outputs: Batch, taught: Batch, batch: Batch, temperature: float) -> Tensor:
    """Returns the squared error to the teacher's scores ``[rows, 1]``; no temperature is in it."""
    return F.mse_loss(outputs["logits"].float(), taught["logits"])


def span_error(outputs: Batch, taught: Batch, batch: Batch, temperature: float) -> Tensor:
    """Returns the mean of ``T^2 KL`` of both ends, each over the tokens of its window.

    Padding is left out: how much of it there is depends on the other rows of a batch.
    """
    padding = batch["attention_mask"] == 0
    sums = []
    for name in ("start_logits", "end_logits"):
        student, teacher = (
            (logits[name].float() / temperature)
            .masked_fill(padding, float("-inf"))
            .log_softmax(-1)
            .masked_fill(padding, 0.0)
            for logits in (outputs, taught)
        )
        sums.append(F.kl_div(student, teacher, reduction="sum", log_target=True))
    return temperature**2 * (sums[0] + sums[1]) / (2 * len(padding))
