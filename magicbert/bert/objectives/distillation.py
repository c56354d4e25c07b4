"""Masked language modelling with a teacher beside the labels (NAS-BERT 3.4)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet
from magicbert.bert.teacher import Teacher
from magicbert.data.batch import TokenBatch
from magicbert.supernet.objective import LossOutput
from magicbert.supernet.supernet import Supernet, SupernetOutput


class DistilledMaskedLanguageModeling(MaskedLanguageModeling):
    """``(1 - l) CE(labels) + l T^2 KL(teacher || student)`` at the predicted positions.

    Without gradients, which is how dev rows are scored, it is the cross-entropy alone: losses of
    distilled and other models compare.

    Args:
        teacher: reads the student's tokens; it is moved to where the student is.
        weight: l, the share of the teacher.
        temperature: T, what both logits are divided by ahead of the softmax.
    """

    def __init__(self, teacher: Teacher, weight: float, temperature: float) -> None:
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature

    def read_loss(
        self, supernet: Supernet, batch: TokenBatch, output: SupernetOutput
    ) -> LossOutput:
        """Returns the loss; both heads see the predicted positions only."""
        if not torch.is_grad_enabled():
            return super().read_loss(supernet, batch, output)
        hidden = output.hidden.flatten(0, 1).index_select(0, batch.predicted_positions)
        logits = cast(BertSupernet, supernet).predict(hidden).float()
        hard = F.cross_entropy(logits, batch.labels, reduction="sum")
        soft = divergence_sum(logits, self.teacher_logits(batch).float(), self.temperature)
        loss_sum = (1 - self.weight) * hard + self.weight * soft
        correct = (logits.detach().argmax(-1) == batch.labels).sum()
        return LossOutput(loss_sum, self.count(batch), output, {"correct": correct})

    def teacher_logits(self, batch: TokenBatch) -> Tensor:
        """Returns what the teacher says at the predicted positions, ``[M, vocabulary]``."""
        teacher = self.teacher.to(batch.input_ids.device)
        last = teacher.config.num_hidden_layers
        states, _ = teacher.states(batch, (last,))
        return teacher.logits(states[last].flatten(0, 1)[batch.predicted_positions])


def divergence_sum(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Returns the sum over rows of ``T^2 KL(teacher || student)`` of softened distributions.

    The factor keeps the size of the gradients when the temperature changes (Hinton et al. 2).

    Args:
        logits: of the student, ``[M, classes]``.
        teacher_logits: the same of the teacher.
        temperature: T.
    """
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, dim=-1),
        F.log_softmax(teacher_logits / temperature, dim=-1),
        reduction="sum",
        log_target=True,
    )
    return temperature**2 * divergence
