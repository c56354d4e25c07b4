"""The BERT supernet and a batch without memory: what a plan counts on instead of training."""

from __future__ import annotations

import torch
from torch import Tensor

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.supernet import BertSupernet, supernet_config
from magicbert.config.sections import ModelSection
from magicbert.data.batch import TokenBatch
from magicbert.space import SearchSpace

NO_MEMORY = torch.device("meta")


class RehearsalSupernet(BertSupernet):
    """The supernet on the meta device: it has shapes, but no values to look at.

    Args:
        space: candidates per layer.
        config: sizes.
        is_packed: rows hold several documents; else they are full.
    """

    def __init__(self, space: SearchSpace, config: MagicBertConfig, *, is_packed: bool) -> None:
        with NO_MEMORY:
            super().__init__(space, config, seed=0)
        self.is_packed = is_packed

    def enter(self, batch: TokenBatch) -> tuple[Tensor, Segments]:
        """Returns the embedded batch and segments that do not depend on values."""
        segments = Segments.full(batch.input_ids.shape[1], NO_MEMORY)
        if self.is_packed:
            ids = batch.segment_ids
            mask = (ids[:, :, None] == ids[:, None, :])[:, None]
            segments = Segments(ids, torch.empty_like(ids), None, mask, True)
        return self.embeddings(batch.input_ids, segments), segments


def rehearsal_supernet(
    space: SearchSpace, model: ModelSection, vocab_size: int, *, is_packed: bool
) -> RehearsalSupernet:
    """Builds the supernet without memory."""
    config = supernet_config(model, vocab_size, 0, backend="torch")
    return RehearsalSupernet(space, config, is_packed=is_packed)


def rehearsal_batch(rows: int, length: int, predicted_share: float) -> TokenBatch:
    """Returns a micro-batch without memory.

    Args:
        rows: of the micro-batch.
        length: tokens per row.
        predicted_share: share of the tokens that are predicted.
    """
    ids = torch.empty(rows, length, dtype=torch.int64, device=NO_MEMORY)
    num_predicted = round(rows * length * predicted_share)
    positions = torch.empty(num_predicted, dtype=torch.int64, device=NO_MEMORY)
    return TokenBatch(ids, ids, positions, positions, ())
