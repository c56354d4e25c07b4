"""Masked language modelling with a teacher beside the labels (NAS-BERT 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
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
        self.teacher_layers: tuple[int, ...] = (teacher.config.num_hidden_layers,)

    def read_loss(
        self, supernet: Supernet, batch: TokenBatch, output: SupernetOutput
    ) -> LossOutput:
        """Returns the loss; both heads see the predicted positions only."""
        if not torch.is_grad_enabled():
            return super().read_loss(supernet, batch, output)
        hidden = output.hidden.flatten(0, 1).index_select(0, batch.predicted_positions)
        logits = cast(BertSupernet, supernet).predict(hidden).float()
        states = self.teacher_states(batch)
        hard = F.cross_entropy(logits, batch.labels, reduction="sum")
        soft = divergence_sum(logits, self.teacher_logits(batch, states), self.temperature)
        loss_sum = (1 - self.weight) * hard + self.weight * soft
        correct = (logits.detach().argmax(-1) == batch.labels).sum()
        loss = LossOutput(loss_sum, self.count(batch), output, {"correct": correct})
        return self.with_states(loss, supernet, batch, states)

    def with_states(
        self, loss: LossOutput, supernet: Supernet, batch: TokenBatch, states: Mapping[int, Tensor]
    ) -> LossOutput:
        """Returns the loss of the logits with what a subclass makes of the teacher's states."""
        return loss

    def teacher_states(self, batch: TokenBatch) -> Mapping[int, Tensor]:
        """Returns the teacher's hidden states after the layers that are asked for."""
        teacher = self.teacher.to(batch.input_ids.device)
        return teacher.states(batch, self.teacher_layers)[0]

    def teacher_logits(self, batch: TokenBatch, states: Mapping[int, Tensor]) -> Tensor:
        """Returns what the teacher says at the predicted positions, fp32 ``[M, vocabulary]``."""
        last = states[self.teacher.config.num_hidden_layers]
        return self.teacher.logits(last.flatten(0, 1)[batch.predicted_positions]).float()


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
