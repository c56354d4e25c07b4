"""The discriminator of replaced-token detection as a Hugging Face model (ELECTRA).

What the arguments mean stands in ``modeling_magicbert.py``.

Shape suffixes: B rows, S positions, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput

from .configuration_magicbert import MagicBertConfig
from .heads import DiscriminatorHead
from .modeling_magicbert import (
    MagicBertModel,
    MagicBertPreTrainedModel,
    as_requested,
    segments_of,
)


@dataclass
class DiscriminatorOutput(ModelOutput):  # type: ignore[misc]
    """What the discriminator returns.

    Attributes:
        loss: mean binary cross-entropy of the tokens that are not padding, if there are labels.
        logits: ``[B, S]``, above 0 = replaced.
        hidden_states: of embeddings and layers, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class MagicBertForPreTraining(MagicBertPreTrainedModel):
    """The encoder with the head that tells replaced tokens from original ones."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__(config)
        self.model = MagicBertModel(config)
        self.discriminator = DiscriminatorHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        segment_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> DiscriminatorOutput | tuple[Tensor, ...]:
        """Returns logits ``[B, S]`` and, given ``labels`` (1 = replaced), the loss."""
        encoded = self.model(
            input_ids, attention_mask, None, position_ids, inputs_embeds, segment_ids,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits_BS = self.discriminator(encoded.last_hidden_state)
        loss = None
        if labels is not None:
            valid_BS = segments_of(input_ids, inputs_embeds, attention_mask, segment_ids).valid
            loss = detection_loss(logits_BS, labels, valid_BS)
        output = DiscriminatorOutput(loss, logits_BS, encoded.hidden_states)
        return as_requested(output, return_dict, self.config)


def detection_loss(logits_BS: Tensor, labels_BS: Tensor, valid_BS: Tensor | None) -> Tensor:
    """Returns the mean binary cross-entropy of the valid positions (``None`` = all)."""
    if valid_BS is not None:
        logits_BS, labels_BS = logits_BS[valid_BS], labels_BS[valid_BS]
    return F.binary_cross_entropy_with_logits(logits_BS.float(), labels_BS.float())
