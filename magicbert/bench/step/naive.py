"""A supernet as one writes it from torch's own layers, of the same function as magicbert's.

Candidates in a ``ModuleList`` per layer, ``MultiheadAttention``, ``Conv1d`` with transposes around
it, and a head that computes logits at every position.

Shape suffixes: B rows, S positions, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magicbert.bench.step.documents import NOT_PREDICTED
from magicbert.bench.step.sizes import DROPOUT
from magicbert.bench.step.transformers_bert import copy_module
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture


class NaiveAttention(nn.Module):
    """``LN(x + Dropout(MultiheadAttention(x)))``."""

    def __init__(self, hidden_size: int, num_heads: int, epsilon: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            hidden_size, num_heads, dropout=DROPOUT, batch_first=True
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.norm = nn.LayerNorm(hidden_size, eps=epsilon)

    def forward(self, hidden_BSH: Tensor, padding_BS: Tensor | None) -> Tensor:
        """Returns the next hidden state."""
        mixed_BSH, _ = self.attention(
            hidden_BSH, hidden_BSH, hidden_BSH, key_padding_mask=padding_BS, need_weights=False
        )
        next_BSH: Tensor = self.norm(hidden_BSH + self.dropout(mixed_BSH))
        return next_BSH

    def load(self, source: Any) -> None:
        """Takes the weights of magicbert's attention, whose layout is the same."""
        self.attention.in_proj_weight.copy_(source.query_key_value.weight)
        self.attention.in_proj_bias.copy_(source.query_key_value.bias)
        copy_module(source.output, self.attention.out_proj)
        copy_module(source.norm, self.norm)


class NaiveFeedForward(nn.Module):
    """``LN(x + Dropout(W2 gelu(W1 x)))``."""

    def __init__(self, hidden_size: int, epsilon: float) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, 4 * hidden_size)
        self.outer = nn.Linear(4 * hidden_size, hidden_size)
        self.dropout = nn.Dropout(DROPOUT)
        self.norm = nn.LayerNorm(hidden_size, eps=epsilon)

    def forward(self, hidden_BSH: Tensor, padding_BS: Tensor | None) -> Tensor:
        """Returns the next hidden state."""
        changed_BSH = self.outer(F.gelu(self.inner(hidden_BSH)))
        next_BSH: Tensor = self.norm(hidden_BSH + self.dropout(changed_BSH))
        return next_BSH

    def load(self, source: Any) -> None:
        """Takes the weights of magicbert's feed-forward layer."""
        for name in ("inner", "outer", "norm"):
            copy_module(getattr(source, name), getattr(self, name))


class NaiveConvolution(nn.Module):
    """Twice ``LN(x + Dropout(gelu(pointwise(depthwise(x)))))``, both convolutions ``Conv1d``."""

    def __init__(self, hidden_size: int, kernel_size: int, epsilon: float) -> None:
        super().__init__()
        middle = kernel_size // 2
        self.depthwise = nn.ModuleList(
            nn.Conv1d(hidden_size, hidden_size, kernel_size, padding=middle, groups=hidden_size)
            for _ in range(2)
        )
        self.pointwise = nn.ModuleList(nn.Conv1d(hidden_size, hidden_size, 1) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size, eps=epsilon) for _ in range(2))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, hidden_BSH: Tensor, padding_BS: Tensor | None) -> Tensor:
        """Returns the next hidden state; padded positions count as zeros."""
        parts = zip(self.depthwise, self.pointwise, self.norms, strict=True)
        for depthwise, pointwise, norm in parts:
            seen_BSH = hidden_BSH
            if padding_BS is not None:
                seen_BSH = hidden_BSH.masked_fill(padding_BS[..., None], 0.0)
            mixed_BSH = pointwise(depthwise(seen_BSH.transpose(1, 2))).transpose(1, 2)
            hidden_BSH = norm(hidden_BSH + self.dropout(F.gelu(mixed_BSH)))
        return hidden_BSH

    def load(self, source: Any) -> None:
        """Takes the weights of magicbert's two separable convolutions."""
        for number, part in enumerate((source.first, source.second)):
            depthwise, pointwise = self.depthwise[number], self.pointwise[number]
            depthwise.weight.copy_(part.depthwise.weight.t()[:, None])  # type: ignore[operator]
            depthwise.bias.copy_(part.depthwise.bias)  # type: ignore[operator]
            pointwise.weight.copy_(part.pointwise.weight[..., None])  # type: ignore[operator]
            pointwise.bias.copy_(part.pointwise.bias)  # type: ignore[operator]
        for norm, given in zip(self.norms, (source.first_norm, source.second_norm), strict=True):
            copy_module(given, norm)


class NaiveSupernet(nn.Module):
    """Embeddings, a ``ModuleList`` of candidates per layer, and a head over every position.

    Args:
        source: gives sizes, candidates and weights.
    """

    def __init__(self, source: BertSupernet) -> None:
        super().__init__()
        config = source.config
        size, epsilon = config.hidden_size, config.layer_norm_eps
        self.names = source.space.layers
        self.tokens = nn.Embedding(config.vocab_size, size)
        self.positions = nn.Embedding(config.max_position_embeddings, size)
        self.norm = nn.LayerNorm(size, eps=epsilon)
        self.dropout = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(
            nn.ModuleList(naive_operator(name, config) for name in names) for names in self.names
        )
        self.transform = nn.Linear(size, size)
        self.transform_norm = nn.LayerNorm(size, eps=epsilon)
        self.decoder = nn.Linear(size, config.vocab_size)
        self.decoder.weight = self.tokens.weight
        self.load(source)

    def forward(self, batch: TokenBatch, path: Architecture) -> Tensor:
        """Returns the mean loss of a path; one document per row."""
        is_padding_BS = batch.segment_ids == 0
        padding_BS = is_padding_BS if bool(is_padding_BS.any()) else None
        place_S = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
        embedded_BSH = self.tokens(batch.input_ids) + self.positions(place_S)
        hidden_BSH = self.dropout(self.norm(embedded_BSH))
        for candidates, names, name in zip(self.layers, self.names, path, strict=True):
            hidden_BSH = candidates[names.index(name)](hidden_BSH, padding_BS)  # type: ignore[index]
        hidden_BSH = self.transform_norm(F.gelu(self.transform(hidden_BSH)))
        logits_BSV = self.decoder(hidden_BSH)
        labels = torch.full_like(batch.input_ids, NOT_PREDICTED)
        labels.view(-1)[batch.predicted_positions] = batch.labels
        return F.cross_entropy(
            logits_BSV.flatten(0, 1), labels.flatten(), ignore_index=NOT_PREDICTED
        )

    @torch.no_grad()
    def load(self, source: BertSupernet) -> None:
        """Takes magicbert's weights."""
        copy_module(source.embeddings.tokens, self.tokens)
        copy_module(source.embeddings.positions, self.positions)
        copy_module(source.embeddings.norm, self.norm)
        copy_module(source.transform.dense, self.transform)
        copy_module(source.transform.norm, self.transform_norm)
        self.decoder.bias.copy_(source.decoder_bias)
        for index, (candidates, names) in enumerate(zip(self.layers, self.names, strict=True)):
            for operator, name in zip(candidates, names, strict=True):  # type: ignore[call-overload]
                operator.load(source.operator(index, name))


def naive_operator(name: str, config: MagicBertConfig) -> nn.Module:
    """Returns the plain form of ``mha{heads}``, ``ffn`` or ``conv{kernel}``."""
    size, epsilon = config.hidden_size, config.layer_norm_eps
    if name.startswith("mha"):
        return NaiveAttention(size, int(name.removeprefix("mha")), epsilon)
    if name == "ffn":
        return NaiveFeedForward(size, epsilon)
    return NaiveConvolution(size, int(name.removeprefix("conv")), epsilon)
