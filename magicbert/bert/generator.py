"""ELECTRA's generator: a small Transformer that fills the masks with what may stand there."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.dropout import Dropout
from magicbert.bert.modeling.encoder import Encoder
from magicbert.bert.modeling.heads import PredictionTransform
from magicbert.bert.modeling.segments import Segments
from magicbert.config.sections import ObjectiveSection

# BERT's and ELECTRA's width of a head; hidden sizes are multiples of the smaller number.
HEAD_WIDTH, WIDTH_STEP = 64, 8


@dataclass(frozen=True, slots=True)
class GeneratorSizes:
    """Sizes of a generator.

    Attributes:
        num_layers: Transformer layers, each an attention and a feed-forward operator.
        hidden_size: its width; the feed-forward layers are four times as wide.
        num_heads: of each attention.
    """

    num_layers: int
    hidden_size: int
    num_heads: int

    @classmethod
    def of(cls, objective: ObjectiveSection, hidden_size: int, num_layers: int) -> GeneratorSizes:
        """Follows ELECTRA's rule: as deep as the encoder, everything else scaled down.

        ELECTRA-base (768, divisor 3) gets hidden size 256 with 4 heads, small (256, divisor 4)
        64 with 1 head.

        Args:
            objective: with the divisor.
            hidden_size: of the encoder.
            num_layers: operators of the encoder; two make a Transformer layer.
        """
        width = hidden_size / objective.generator_divisor
        own = max(WIDTH_STEP, round(width / WIDTH_STEP) * WIDTH_STEP)
        most_heads = max(1, round(own / HEAD_WIDTH))
        heads = next(number for number in range(most_heads, 0, -1) if own % number == 0)
        return cls(objective.generator_layers or max(1, num_layers // 2), own, heads)

    def config(self, encoder: MagicBertConfig, table_size: int) -> MagicBertConfig:
        """Returns the generator's configuration.

        Args:
            encoder: of the discriminator; dropout, epsilon and vocabulary are its.
            table_size: width of the embedding tables, which both share.
        """
        config = copy.copy(encoder)
        config.architecture = "-".join([f"mha{self.num_heads}-ffn"] * self.num_layers)
        config.hidden_size, config.embedding_size = self.hidden_size, table_size
        return config


class Generator(nn.Module):
    """The generator without embeddings: tables and their norm are the discriminator's.

    Attributes:
        bias: of the decoder, whose matrix is the token table.

    Args:
        config: as `GeneratorSizes.config` returns it.
    """

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        sizes = config.table_size, config.hidden_size
        self.project = None if sizes[0] == sizes[1] else nn.Linear(*sizes)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.encoder = Encoder(config)
        self.transform = PredictionTransform(config)
        self.bias = nn.Parameter(self.transform.norm.bias.new_zeros(config.vocab_size))

    def forward(self, embedded: Tensor, segments: Segments, positions: Tensor) -> Tensor:
        """Returns what the decoder reads at the predicted positions, ``[M, table width]``.

        Args:
            embedded: the masked rows, normed, before any projection: ``[rows, length, table]``.
            segments: of the rows.
            positions: ``[M]`` flat indices into ``rows * length``.
        """
        first = embedded if self.project is None else self.project(embedded)
        first = segments.hide_padding(self.dropout(first))
        last, _ = self.encoder(first, segments)
        transformed: Tensor = self.transform(last.flatten(0, 1).index_select(0, positions))
        return transformed
