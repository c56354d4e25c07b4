"""Token and position embeddings.

Shape suffixes: B rows, S positions, H hidden.
"""

from __future__ import annotations

from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .dropout import Dropout
from .segments import Segments


class PositionTable(nn.Embedding):
    """Learned positions with a scale of initial values of their own.

    Args:
        num_positions: rows.
        size: width.
        std: of the initial values; ``None`` = that of all embeddings.
    """

    def __init__(self, num_positions: int, size: int, std: float | None) -> None:
        super().__init__(num_positions, size)
        self.std = std

    def initialize(self, std: float) -> None:
        """Fills the table; ``std`` counts where the table has none of its own."""
        nn.init.normal_(self.weight, std=std if self.std is None else self.std)


class Embeddings(nn.Module):
    """``Dropout(P LN(token + position))``, padded positions zeroed.

    ``P`` maps the tables' width to the first operator's; there is none where both are equal.

    Positions are learned, absolute, and start again with every segment; there are no segment
    embeddings (NAS-BERT trains without next-sentence prediction).

    Args:
        config: sizes and dropout.
    """

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        table_size, entry_size = config.table_size, config.entry_size
        self.tokens = nn.Embedding(config.vocab_size, table_size)
        self.positions = PositionTable(
            config.max_position_embeddings, table_size, config.position_initializer_range
        )
        self.norm = nn.LayerNorm(table_size, eps=config.layer_norm_eps)
        self.project = None if table_size == entry_size else nn.Linear(table_size, entry_size)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids_BS: Tensor | None,
        segments: Segments,
        position_ids_BS: Tensor | None = None,
        inputs_embeds_BSH: Tensor | None = None,
    ) -> Tensor:
        """Returns the first hidden state.

        Args:
            input_ids_BS: token ids; not read when ``inputs_embeds_BSH`` is given.
            segments: of the batch.
            position_ids_BS: replaces the positions counted from each segment's start.
            inputs_embeds_BSH: replaces the token embeddings.
        """
        first_BSH = self.embed(input_ids_BS, segments, position_ids_BS, inputs_embeds_BSH)
        if self.project is not None:
            first_BSH = self.project(first_BSH)
        return segments.hide_padding(self.dropout(first_BSH))

    def embed(
        self,
        input_ids_BS: Tensor | None,
        segments: Segments,
        position_ids_BS: Tensor | None = None,
        inputs_embeds_BSH: Tensor | None = None,
    ) -> Tensor:
        """Returns ``LN(token + position)`` at the tables' width; arguments as in `forward`."""
        embedded_BSH = self.tokens(input_ids_BS) if inputs_embeds_BSH is None else inputs_embeds_BSH
        longest = self.positions.num_embeddings
        if embedded_BSH.shape[1] > longest and position_ids_BS is None:
            raise ValueError(
                f"a row of {embedded_BSH.shape[1]} tokens is longer than the {longest} positions "
                "of this model: truncate or split it"
            )
        if position_ids_BS is None:
            position_ids_BS = segments.position_ids
        normed: Tensor = self.norm(embedded_BSH + self.positions(position_ids_BS))
        return normed
