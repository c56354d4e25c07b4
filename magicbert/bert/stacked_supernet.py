"""Models of masked language modelling, trained side by side, as one module.

Shapes: G models, B rows of each, S positions, H hidden, P predictions of a model at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from magicbert.bert.modeling.depthwise import DepthwiseConvolution, ShiftedProducts
from magicbert.bert.modeling.embeddings import Embeddings
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.data.layout import RowLayout
from magicbert.errors import UserError
from magicbert.supernet.stacked_models import StackedModels
from magicbert.supernet.stacked_modules import Form, by_model, stack_parameters

# What cross-entropy leaves out.
NO_LABEL = -100


@dataclass(frozen=True)
class StackedTokens:
    """The batches of several models.

    Attributes:
        input_ids: ``[G B, S]`` int64, model by model.
        segment_ids: ``[G B, S]`` int64.
        predicted_positions: ``[G, P]`` int64, indices into a model's ``B S``, padded by 0.
        labels: ``[G, P]`` int64, padded by `NO_LABEL`.
        layout: of ``segment_ids``.
    """

    input_ids: Tensor
    segment_ids: Tensor
    predicted_positions: Tensor
    labels: Tensor
    layout: RowLayout

    def to(self, device: torch.device) -> StackedTokens:
        """Returns the batches on a device; the copy does not wait for the device."""
        return StackedTokens(
            self.input_ids.to(device, non_blocking=True),
            self.segment_ids.to(device, non_blocking=True),
            self.predicted_positions.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.layout,
        )


class StackedConvolution(nn.Module):
    """Depthwise convolutions, each on the rows of its model.

    Args:
        convolutions: of one size.
    """

    def __init__(self, convolutions: Sequence[DepthwiseConvolution]) -> None:
        super().__init__()
        self.weight = stack_parameters([one.weight for one in convolutions])
        self.bias = stack_parameters([one.bias for one in convolutions])

    def forward(self, hidden: Tensor, segments: Segments) -> Tensor:
        """Maps ``[G B, S, H]`` to the same shape, within each segment."""
        hidden = segments.hide_padding(hidden)
        by_row = hidden.reshape(len(self.weight), -1, *hidden.shape[1:])
        mixed: Tensor = ShiftedProducts.apply(  # type: ignore[no-untyped-call]
            by_row, self.weight, self.bias, segments
        )
        return mixed.view_as(hidden)


class StackedBert(StackedModels):
    """Paths of BERT supernets, one of each; losses as `BertSupernet` and its objective say.

    Everything runs in plain torch; all logits of a step are kept until the backward.

    Args:
        supernets: one per model.

    Raises:
        UserError: they have dropout.
    """

    forms: ClassVar[dict[type[nn.Module], Form]] = {DepthwiseConvolution: StackedConvolution}

    def __init__(self, supernets: Sequence[BertSupernet]) -> None:
        config = supernets[0].config
        if config.hidden_dropout_prob or config.attention_probs_dropout_prob:
            raise UserError(
                "ranking.models_at_once: models that train side by side have no dropout; set "
                "ranking.model.dropout and attention_dropout to 0, or models_at_once to 1"
            )
        super().__init__(supernets)

    def add_shared(self, supernets: Sequence[BertSupernet]) -> None:
        """Adds the embeddings and the head."""
        self.embeddings = self.stack([supernet.embeddings for supernet in supernets])
        self.transform = self.stack([supernet.transform for supernet in supernets])
        self.decoder_bias = stack_parameters([supernet.decoder_bias for supernet in supernets])

    def collate(self, batches: Sequence[TokenBatch]) -> StackedTokens:
        """Returns the batches one after the other, their predicted positions padded."""
        segment_ids = torch.cat([batch.segment_ids for batch in batches])
        return StackedTokens(
            torch.cat([batch.input_ids for batch in batches]),
            segment_ids,
            pad_sequence([batch.predicted_positions for batch in batches], batch_first=True),
            pad_sequence([batch.labels for batch in batches], True, NO_LABEL),
            RowLayout.of_ids(segment_ids),
        )

    def enter(self, batch: StackedTokens) -> tuple[Tensor, Segments]:
        """Returns the embedded rows and their segments."""
        segments = Segments.of_ids(batch.segment_ids, batch.layout)
        positions = segments.position_ids.expand_as(batch.input_ids)
        return self.embeddings(batch.input_ids, segments, positions), segments

    def read_losses(self, batch: StackedTokens, hidden: Tensor) -> Tensor:
        """Returns each model's sum of losses; the head sees the predicted positions only."""
        index = batch.predicted_positions[..., None].expand(-1, -1, hidden.shape[-1])
        transformed = self.transform(by_model(hidden, self.num_models).gather(1, index))
        table = cast(Embeddings, self.embeddings).tokens.weight
        logits = torch.baddbmm(self.decoder_bias[:, None], transformed, table.transpose(1, 2))
        losses = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=NO_LABEL, reduction="none"
        )
        return losses.view_as(batch.labels).sum(1)
