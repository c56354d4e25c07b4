"""The supernet of replaced-token detection: its paths are discriminators, beside one generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert.bert.generator import Generator, GeneratorSizes
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.heads import DiscriminatorHead
from magicbert.bert.supernet import EncoderSupernet, token_loss
from magicbert.data.batch import TokenBatch
from magicbert.space import SearchSpace

# Positions whose logits are held at a time: 256 x 30,522 are 30 MB.
SAMPLED_AT_ONCE = 256


class ElectraSupernet(EncoderSupernet):
    """An encoder per path, the discriminator's head, and the generator, which all paths share.

    The tables of tokens and positions and their norm belong to generator and discriminator alike
    (ELECTRA 3.2: tied embeddings), so both losses train them. The rest of the generator is its
    own; an extracted or exported model leaves it behind.

    Args:
        space: candidates per layer.
        config: sizes; its ``architecture`` is not read.
        seed: of the initial weights.
        sizes: of the generator.
    """

    def __init__(
        self, space: SearchSpace, config: MagicBertConfig, seed: int, sizes: GeneratorSizes
    ) -> None:
        super().__init__(space, config, seed)
        self.sizes = sizes
        own = sizes.config(config, self.embeddings.tokens.embedding_dim)
        self.generator = self.seeded("generator", lambda: Generator(own))
        self.discriminator = self.seeded("discriminator", lambda: DiscriminatorHead(config))

    def fill(self, batch: TokenBatch) -> Tensor:
        """Returns what the generator's decoder reads at the masked positions.

        Returns:
            ``[M, table width]``, M the masked positions of the batch.
        """
        segments = self.segments(batch)
        embedded = self.embeddings.embed(batch.input_ids, segments)
        filled: Tensor = self.generator(embedded, segments, batch.predicted_positions)
        return filled

    def filling_loss(self, filled: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the generator's summed cross-entropy, and how many labels it finds."""
        table = self.embeddings.tokens.weight
        return token_loss(filled, table, self.generator.bias, labels, self.config.backend)

    @torch.no_grad()
    def sample(self, filled: Tensor, noise: torch.Generator | None) -> Tensor:
        """Draws a token for each position from the generator's distribution, without gradient.

        The Gumbel-max trick: the argmax of logits plus Gumbel noise is a draw from their softmax;
        ``-log E`` with ``E`` exponential is Gumbel noise.

        Args:
            filled: as `fill` returned it.
            noise: where the noise is drawn from; ``None`` = torch's generator of the device.

        Returns:
            int64 ``[M]``.
        """
        table, bias = self.embeddings.tokens.weight, self.generator.bias
        drawn = []
        for part in torch.split(filled, SAMPLED_AT_ONCE):
            logits = F.linear(part, table, bias).float()
            exponential = torch.empty_like(logits).exponential_(generator=noise)
            drawn.append((logits - exponential.log()).argmax(-1))
        return torch.cat(drawn)

    def detect(self, hidden: Tensor) -> Tensor:
        """Maps the last hidden state ``[..., H]`` to logits ``[...]``; above 0 = replaced."""
        logits: Tensor = self.discriminator(hidden)
        return logits
