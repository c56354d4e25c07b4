"""Masked language modelling (BERT 3.1): cross-entropy of the hidden tokens."""

from __future__ import annotations

from typing import cast

from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.supernet import Supernet, SupernetOutput


class MaskedLanguageModeling(Objective):
    """The objective over batches that name their predicted positions and labels."""

    def count(self, batch: TokenBatch) -> int:
        """Returns the number of predicted positions."""
        return len(batch.predicted_positions)

    def num_tokens(self, batch: TokenBatch) -> int:
        """Returns the number of positions that are not padding."""
        assert batch.layout is not None, "a batch without values has no tokens to count"
        return batch.layout.num_tokens

    def read_loss(
        self, supernet: Supernet, batch: TokenBatch, output: SupernetOutput
    ) -> LossOutput:
        """Returns the loss; the head sees the predicted positions only."""
        hidden = output.hidden.flatten(0, 1).index_select(0, batch.predicted_positions)
        loss_sum, correct = cast(BertSupernet, supernet).prediction_loss(hidden, batch.labels)
        return LossOutput(loss_sum, self.count(batch), output, {"correct": correct})
