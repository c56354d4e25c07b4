"""Hidden states and attention relations beside a teacher's logits.

Hidden states are compared by their squared error (TinyBERT's and NAS-BERT's), relations as in
MiniLMv2, section 3. Both are means over the positions that are not padding.

Shapes: B rows, S positions, H width, R relation heads, D width of one of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from magicbert.bert.modeling.attention import Attention
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.modeling.transfer import Transferred
from magicbert.bert.objectives.distillation import DistilledMaskedLanguageModeling
from magicbert.bert.state_matching import StateMatching
from magicbert.bert.taught_supernet import TaughtOutput, TaughtSupernet
from magicbert.bert.teacher import Teacher
from magicbert.data.batch import TokenBatch
from magicbert.supernet.objective import LossOutput
from magicbert.supernet.supernet import Supernet, SupernetOutput


class StateDistillation(DistilledMaskedLanguageModeling):
    """The distilled loss with states beside it, of a supernet over one architecture.

    Args:
        teacher: reads the student's tokens; it is moved to where the student is.
        weight: l, the share of the teacher's logits.
        temperature: T, what both logits are divided by.
        matching: which states are compared, and their weights.
    """

    logged = ("hidden_error", "relation_error", "taught")

    def __init__(
        self, teacher: Teacher, weight: float, temperature: float, matching: StateMatching
    ) -> None:
        super().__init__(teacher, weight, temperature)
        self.matching = matching
        self.teacher_layers = tuple({*self.teacher_layers, *matching.teacher_layers()})

    def num_auxiliary(self, batch: TokenBatch) -> int:
        """Returns the number of positions that are not padding: the states' are compared there."""
        return self.num_tokens(batch)

    def read_loss(
        self, supernet: Supernet, batch: TokenBatch, output: SupernetOutput
    ) -> LossOutput:
        """Returns the loss; without gradients there is no teacher in it, as in the base."""
        loss = super().read_loss(supernet, batch, output)
        errors = {name: loss.loss_sum.new_zeros(()) for name in self.logged}
        return dataclasses.replace(loss, metrics={**errors, **loss.metrics})

    def with_states(
        self, loss: LossOutput, supernet: Supernet, batch: TokenBatch, states: Mapping[int, Tensor]
    ) -> LossOutput:
        """Returns the loss with the errors of the states beside it."""
        student, output = cast(TaughtSupernet, supernet), cast(TaughtOutput, loss.output)
        hidden = self.hidden_error(student, output, states)
        relations = self.relation_error(student, output, states)
        matching = self.matching
        metrics = {
            "hidden_error": hidden.detach(),
            "relation_error": relations.detach(),
            "taught": hidden.new_tensor(float(self.num_tokens(batch))),
        }
        return dataclasses.replace(
            loss,
            auxiliary=matching.hidden_weight * hidden + matching.attention_weight * relations,
            metrics={**loss.metrics, **metrics},
        )

    def hidden_error(
        self, student: TaughtSupernet, output: TaughtOutput, states: Mapping[int, Tensor]
    ) -> Tensor:
        """Returns the squared error, mean over features and pairs, summed over positions."""
        total = output.hidden.new_zeros((), dtype=output.hidden.float().dtype)
        for pair in self.matching.hidden:
            predicted = student.mapped(pair, output.states[pair.student]).float()
            squares = (predicted - states[pair.teacher].float()).square().mean(-1)
            total = total + sum_of_valid(squares, output.valid) / len(self.matching.hidden)
        return total

    def relation_error(
        self, student: TaughtSupernet, output: TaughtOutput, states: Mapping[int, Tensor]
    ) -> Tensor:
        """Returns the divergence of the relations of queries, keys and values, summed.

        The projections run again on the states that the operators have read: what an operator
        computes inside, compiled or recorded as it may be, is its own.
        """
        pair, segments = self.matching.attention, output.segments
        if pair is None:
            return output.hidden.new_zeros((), dtype=output.hidden.float().dtype)
        (name,) = student.space.layers[pair.student - 1]
        own = student.operator(pair.student - 1, name)
        taught = self.teacher.model.model.encoder.layers[pair.teacher - 1]
        students = projections(own, output.states[pair.student - 1], segments)
        teachers = projections(taught, states[pair.teacher - 1], segments)
        divergences = [
            relation_divergence(one, other, segments, pair.num_heads)
            for one, other in zip(students, teachers, strict=True)
        ]
        return sum_of_valid(sum(divergences[1:], divergences[0]), output.valid)

    def rates(self, sums: Mapping[str, float]) -> dict[str, float | None]:
        """Returns the errors of a position; nothing on dev rows, where nothing is compared."""
        taught = sums["taught"]
        return {name: sums[name] / taught for name in self.logged[:2]} if taught else {}


def sum_of_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """Returns the sum of ``[B, S]`` values over the positions that are not padding."""
    return (values if valid is None else values.masked_fill(~valid, 0.0)).sum()


def projections(
    layer: nn.Module, hidden: Tensor, segments: Segments
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the queries, keys and values of an attention layer, ``[B, S, H]`` each, all heads.

    Args:
        layer: the operator, with or without a border of widths ahead of it.
        hidden: what the layer reads, ``[B, S, width ahead of it]``.
        segments: of the batch.
    """
    if isinstance(layer, Transferred):
        hidden = segments.hide_padding(layer.transfer(hidden))
        layer = layer.operator
    query, key, value = cast(Attention, layer).query_key_value(hidden).chunk(3, dim=-1)
    return query, key, value


def relation_divergence(
    student: Tensor, teacher: Tensor, segments: Segments, num_heads: int
) -> Tensor:
    """Returns ``KL(teacher || student)`` of each position's relations, ``[B, S]``.

    A relation is ``softmax(A A^T / sqrt(D))`` over the positions of the segment, A being the
    queries, the keys or the values, cut into relation heads; the mean over these is taken.

    Args:
        student: its A, ``[B, S, H]``.
        teacher: the same of the teacher, of any width.
        segments: of the batch.
        num_heads: R; divides both widths.
    """
    of_student, of_teacher = (
        log_relations(vectors, segments, num_heads) for vectors in (student, teacher)
    )
    divergence = F.kl_div(of_student, of_teacher, reduction="none", log_target=True)
    return divergence.sum(-1).mean(1)


def log_relations(vectors: Tensor, segments: Segments, num_heads: int) -> Tensor:
    """Returns log relations ``[B, R, S, S]``; 0 where a position must not be seen."""
    rows, length, width = vectors.shape
    size = width // num_heads
    heads = vectors.float().reshape(rows, length, num_heads, size).transpose(1, 2)
    products = heads @ heads.transpose(-1, -2) / math.sqrt(size)
    mask = segments.attention_mask
    if mask is None:
        return products.log_softmax(-1)
    return products.masked_fill(~mask, float("-inf")).log_softmax(-1).masked_fill(~mask, 0.0)
