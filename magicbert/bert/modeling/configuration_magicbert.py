"""Configuration of a MagicBERT encoder: a chain of named operators."""

from __future__ import annotations

from typing import ClassVar

from transformers import PreTrainedConfig

from .operator_names import width_of

AUTO_MAP = {
    "AutoConfig": "configuration_magicbert.MagicBertConfig",
    "AutoModel": "modeling_magicbert.MagicBertModel",
    "AutoModelForMaskedLM": "modeling_magicbert.MagicBertForMaskedLM",
    "AutoModelForPreTraining": "modeling_discriminator.MagicBertForPreTraining",
    "AutoModelForSequenceClassification": "modeling_magicbert.MagicBertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_magicbert.MagicBertForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_magicbert.MagicBertForQuestionAnswering",
}
"""What ``config.json`` of an exported folder says about where the classes are."""

CUSTOM_PIPELINES = {
    "question-answering": {
        "impl": "question_answering_pipeline.QuestionAnsweringPipeline",
        "pt": ["AutoModelForQuestionAnswering"],
    }
}
"""The same for models that answer questions: transformers 5.3 removed its own pipeline."""


class MagicBertConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes, dropout and architecture of an encoder.

    Attributes:
        architecture: one operator name per layer joined by ``-``, such as ``mha12-ffn-conv3``;
            an operator that states its width, such as ``mha4w256``, works at that width.
        vocab_size: rows of the token table.
        hidden_size: width of the operators that state none, and of the last one: heads read it.
        embedding_size: width of the token and position tables and of the decoder, projected to the
            first operator's width where the two differ; ``None`` = that width (ALBERT 3.1).
        max_position_embeddings: longest sequence.
        hidden_dropout_prob: dropout of embeddings, operator outputs and heads.
        attention_probs_dropout_prob: dropout of the attention weights.
        classifier_dropout: dropout of fine-tuning heads; ``None`` = ``hidden_dropout_prob``.
        initializer_range: standard deviation of new embeddings, feed-forward layers and heads.
        position_initializer_range: that of new position embeddings; ``None`` = the same. Next to
            small ones tokens stand out from the first step on, which narrow models need.
        layer_norm_eps: epsilon of every layer norm.
        pad_token_id: id of the padding token.
        tie_word_embeddings: the masked-language head shares the token table.
        backend: ``triton`` runs the fused kernels of ``magicbert_kernels``, ``torch`` plain torch;
            ``auto`` takes the kernels on a GPU, where that package and triton are installed.
    """

    model_type = "magicbert"
    attribute_map: ClassVar[dict[str, str]] = {}

    architecture: str = "-".join(("mha12", "ffn") * 12)
    vocab_size: int = 30522
    hidden_size: int = 768
    embedding_size: int | None = None
    max_position_embeddings: int = 512
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    initializer_range: float = 0.02
    position_initializer_range: float | None = None
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    backend: str = "auto"

    @property
    def operators(self) -> tuple[str, ...]:
        """Operator names, first layer first."""
        return tuple(self.architecture.split("-")) if self.architecture else ()

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""
        return len(self.operators)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each operator, first layer first."""
        return tuple(width_of(name, self.hidden_size) for name in self.operators)

    @property
    def entry_size(self) -> int:
        """Width of the first operator's input; that of the encoder if there is no operator."""
        return self.widths[0] if self.operators else self.hidden_size

    @property
    def table_size(self) -> int:
        """Width of the token and position tables and of the decoder."""
        return self.entry_size if self.embedding_size is None else self.embedding_size
