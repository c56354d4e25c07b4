"""MagicBERT as Hugging Face models.

``forward`` takes what BERT users pass:

- ``input_ids`` or ``inputs_embeds``;
- ``attention_mask``: ``[B, S]``, 0 = padding;
- ``segment_ids``: ``[B, S]``, 0 = padding, 1.. = the document, ascending in a row; several packed
  documents in one row are encoded as if each stood alone;
- ``position_ids``: instead of positions counted from the start of each segment;
- ``token_type_ids``: accepted and ignored, there are no segment embeddings;
- ``labels``, ``output_hidden_states``, ``return_dict``: as everywhere in transformers.

Shape suffixes: B rows, S positions, H hidden, V vocabulary, C classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import ModelOutput

from .configuration_magicbert import MagicBertConfig
from .embeddings import Embeddings
from .encoder import Encoder
from .heads import (
    ClassificationHead,
    PredictionTransform,
    classification_loss,
    head_dropout,
    span_loss,
)
from .initialization import initialize
from .operators import OPERATORS
from .segments import Segments


class MagicBertPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """Base of the models: configuration, loading and initial weights."""

    config_class = MagicBertConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = [kind.__name__ for kind in OPERATORS]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        initialize(module, self.config.initializer_range)


class MagicBertModel(MagicBertPreTrainedModel):
    """The encoder without a head."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Returns the token table."""
        return self.embeddings.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the token table."""
        self.embeddings.tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        segment_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """Returns the last hidden state ``[B, S, H]``; the module says what the arguments mean."""
        if output_attentions:
            raise ValueError(
                "output_attentions is not offered: not every layer is attention, and those that "
                "are compute it fused"
            )
        segments = segments_of(input_ids, inputs_embeds, attention_mask, segment_ids)
        first_BSH = self.embeddings(input_ids, segments, position_ids, inputs_embeds)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        last_BSH, kept = self.encoder(first_BSH, segments, bool(output_hidden_states))
        output = BaseModelOutput(last_hidden_state=last_BSH, hidden_states=kept)
        return as_requested(output, return_dict, self.config)


class MagicBertForMaskedLM(MagicBertPreTrainedModel):
    """The encoder with the masked-language head; the decoder shares the token table."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "decoder.weight": "model.embeddings.tokens.weight"
    }

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__(config)
        self.model = MagicBertModel(config)
        self.transform = PredictionTransform(config)
        self.decoder = nn.Linear(config.table_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """Returns the decoder."""
        return self.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replaces the decoder."""
        self.decoder = value

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
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Returns logits ``[B, S, V]`` and, given ``labels`` (-100 = not predicted), the loss."""
        encoded = self.model(
            input_ids, attention_mask, None, position_ids, inputs_embeds, segment_ids,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits_BSV = self.decoder(self.transform(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BSV.flatten(0, 1).float(), labels.flatten())
        output = MaskedLMOutput(loss=loss, logits=logits_BSV, hidden_states=encoded.hidden_states)
        return as_requested(output, return_dict, self.config)


class MagicBertForSequenceClassification(MagicBertPreTrainedModel):
    """The encoder with a classifier or a regression on the first token."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = MagicBertModel(config)
        self.classifier = ClassificationHead(config)
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
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Returns logits ``[B, C]`` and, given ``labels`` ``[B]`` or ``[B, C]``, the loss."""
        encoded = self.model(
            input_ids, attention_mask, None, position_ids, inputs_embeds, segment_ids,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        first_BH = first_hidden(encoded.last_hidden_state, attention_mask)
        logits_BC = self.classifier(first_BH)
        loss = None if labels is None else classification_loss(logits_BC, labels, self.config)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits_BC, hidden_states=encoded.hidden_states
        )
        return as_requested(output, return_dict, self.config)


class MagicBertForTokenClassification(MagicBertPreTrainedModel):
    """The encoder with a classifier on every token."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = MagicBertModel(config)
        self.dropout = head_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
    ) -> TokenClassifierOutput | tuple[Tensor, ...]:
        """Returns logits ``[B, S, C]`` and, given ``labels`` (-100 = left out), the loss."""
        encoded = self.model(
            input_ids, attention_mask, None, position_ids, inputs_embeds, segment_ids,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits_BSC = self.classifier(self.dropout(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BSC.flatten(0, 1).float(), labels.flatten())
        output = TokenClassifierOutput(
            loss=loss, logits=logits_BSC, hidden_states=encoded.hidden_states
        )
        return as_requested(output, return_dict, self.config)


class MagicBertForQuestionAnswering(MagicBertPreTrainedModel):
    """The encoder with the two ends of an answer span."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__(config)
        self.model = MagicBertModel(config)
        self.ends = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        segment_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Returns start and end logits ``[B, S]`` and, given both positions ``[B]``, the loss."""
        encoded = self.model(
            input_ids, attention_mask, None, position_ids, inputs_embeds, segment_ids,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        start_logits_BS, end_logits_BS = self.ends(encoded.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits_BS, end_logits_BS, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits_BS.contiguous(),
            end_logits=end_logits_BS.contiguous(),
            hidden_states=encoded.hidden_states,
        )
        return as_requested(output, return_dict, self.config)


def segments_of(
    input_ids_BS: Tensor | None,
    inputs_embeds_BSH: Tensor | None,
    attention_mask_BS: Tensor | None,
    segment_ids_BS: Tensor | None,
) -> Segments:
    """Returns the segments that a user's arguments describe.

    Raises:
        ValueError: not exactly one kind of input, or a mask that is not ``[B, S]``.
    """
    if (input_ids_BS is None) == (inputs_embeds_BSH is None):
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    inputs = input_ids_BS if inputs_embeds_BSH is None else inputs_embeds_BSH[..., 0]
    assert inputs is not None
    for name, given in (("attention_mask", attention_mask_BS), ("segment_ids", segment_ids_BS)):
        if given is not None and given.shape != inputs.shape:
            raise ValueError(
                f"{name} must have the shape of the input, {list(inputs.shape)}, "
                f"got {list(given.shape)}"
            )
    if torch.compiler.is_exporting() and attention_mask_BS is not None and segment_ids_BS is None:
        return Segments.of_mask(attention_mask_BS)
    ids_BS = segment_ids_BS
    if attention_mask_BS is not None:
        seen_BS = (attention_mask_BS > 0).long()
        ids_BS = seen_BS if ids_BS is None else ids_BS * seen_BS
    if ids_BS is None:
        return Segments.full(inputs.shape[1], inputs.device)
    return Segments.of_ids(ids_BS)


def first_hidden(hidden_BSH: Tensor, attention_mask_BS: Tensor | None) -> Tensor:
    """Returns the hidden state of each row's first token, ``[B, H]``, padded left or right."""
    if attention_mask_BS is None:
        return hidden_BSH[:, 0]
    first_B = (attention_mask_BS > 0).int().argmax(1)
    return hidden_BSH[torch.arange(first_B.shape[0], device=first_B.device), first_B]


def as_requested(
    output: ModelOutput, return_dict: bool | None, config: MagicBertConfig
) -> ModelOutput | tuple[Tensor, ...]:
    """Returns the output by name, or as a tuple of what is not ``None``."""
    by_name = config.return_dict if return_dict is None else return_dict
    return output if by_name else output.to_tuple()
