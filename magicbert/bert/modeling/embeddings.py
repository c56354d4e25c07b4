"""Token and position embeddings.

Shape suffixes: B rows, S positions, H hidden.
"""

from __future__ import annotations

from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .dropout import Dropout
from .segments import Segments


class Embeddings(nn.Module):
    """``Dropout(LN(token + position))``, padded positions zeroed.

    Positions are learned, absolute, and start again with every segment; there are no segment
    embeddings (NAS-BERT trains without next-sentence prediction).
    """

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
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
        embedded_BSH = self.tokens(input_ids_BS) if inputs_embeds_BSH is None else inputs_embeds_BSH
        longest = self.positions.num_embeddings
        if embedded_BSH.shape[1] > longest and position_ids_BS is None:
            raise ValueError(
                f"a row of {embedded_BSH.shape[1]} tokens is longer than the {longest} positions "
                "of this model: truncate or split it"
            )
        if position_ids_BS is None:
            position_ids_BS = segments.position_ids
        summed_BSH = embedded_BSH + self.positions(position_ids_BS)
        return segments.hide_padding(self.dropout(self.norm(summed_BSH)))
