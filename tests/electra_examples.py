"""A small supernet of replaced-token detection, and text that a generator can learn."""

from __future__ import annotations

import torch
from bert_examples import OPERATORS, VOCABULARY, config
from torch import Tensor

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.generator import GeneratorSizes
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace

PATH = Architecture.parse("mha2-ffn-conv3-ffn24")
SPACE = SearchSpace.uniform(4, OPERATORS)
SIZES = GeneratorSizes(num_layers=1, hidden_size=8, num_heads=1)
DROPLESS = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MASK = VOCABULARY - 1


def electra(space: SearchSpace = SPACE, **sizes: object) -> ElectraSupernet:
    return ElectraSupernet(space, config(**(DROPLESS | sizes)), 0, SIZES)


class GreedyElectra(ElectraSupernet):
    """Fills in the most likely token: a sample that does not depend on how rows are batched."""

    def sample(self, filled: Tensor, noise: torch.Generator | None) -> Tensor:
        logits = filled @ self.embeddings.tokens.weight.T + self.generator.bias
        return logits.argmax(-1)


def repeating_rows(number: int, rows: int = 8, length: int = 12) -> TokenBatch:
    """Rows that repeat one token: a masked token stands beside it."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(1, 21, (rows, 1), generator=generator).repeat(1, length)
    flat = ids.flatten().clone()
    positions = (torch.rand(rows * length, generator=generator) < 0.15).nonzero().flatten()
    labels = flat[positions].clone()
    flat[positions] = MASK
    return TokenBatch(
        flat.view(rows, length), torch.ones_like(ids), positions, labels,
        tuple(range(number * rows, (number + 1) * rows)),
    )  # fmt: skip
