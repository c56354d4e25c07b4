"""What stands on top of the encoder.

Shape suffixes: ... any leading axes, B rows, H hidden, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .fused import Call, linear_gelu, runs_kernels


class PredictionTransform(nn.Module):
    """``LN(gelu(W x))``, ahead of the masked-language decoder, at the token table's width."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.table_size)
        self.norm = nn.LayerNorm(config.table_size, eps=config.layer_norm_eps)
        self.backend = config.backend

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps ``[..., H]`` to ``[..., E]``, E the width of the token table."""
        call = Call(runs_kernels(self.backend, hidden), dropout=0.0)
        transformed: Tensor = self.norm(linear_gelu(self.dense, hidden, call))
        return transformed


class DiscriminatorHead(nn.Module):
    """``w gelu(W x)``: how much a token looks replaced (ELECTRA 3.1)."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, 1)
        self.backend = config.backend

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps ``[..., H]`` to logits ``[...]``; above 0 = replaced."""
        call = Call(runs_kernels(self.backend, hidden), dropout=0.0)
        logits: Tensor = self.output(linear_gelu(self.dense, hidden, call)).squeeze(-1)
        return logits


class ClassificationHead(nn.Module):
    """RoBERTa's head on the first token: dropout, dense, tanh, dropout, linear."""

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        self.dropout = head_dropout(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, first_BH: Tensor) -> Tensor:
        """Returns logits ``[B, C]``."""
        pooled_BH = torch.tanh(self.dense(self.dropout(first_BH)))
        logits_BC: Tensor = self.output(self.dropout(pooled_BH))
        return logits_BC


def head_dropout(config: MagicBertConfig) -> nn.Dropout:
    """Returns the dropout of fine-tuning heads."""
    given = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if given is None else given)


def classification_loss(logits_BC: Tensor, labels: Tensor, config: MagicBertConfig) -> Tensor:
    """Returns the loss that the problem type asks for.

    A problem type that is not set follows from the number of labels and their type, as in
    transformers: one label is regression, whole numbers are classes, anything else is multi-label.
    """
    if config.problem_type is None:
        if config.num_labels == 1:
            config.problem_type = "regression"
        elif labels.dtype in (torch.long, torch.int):
            config.problem_type = "single_label_classification"
        else:
            config.problem_type = "multi_label_classification"
    if config.problem_type == "regression":
        return F.mse_loss(logits_BC.squeeze(-1).float(), labels.squeeze(-1).float())
    if config.problem_type == "single_label_classification":
        return F.cross_entropy(logits_BC.float(), labels.view(-1))
    return F.binary_cross_entropy_with_logits(logits_BC.float(), labels.float())


def span_loss(
    start_logits_BS: Tensor, end_logits_BS: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    """Returns the mean cross-entropy of both ends; a span outside the row is left out."""
    length = start_logits_BS.shape[1]
    losses = [
        F.cross_entropy(logits_BS.float(), positions.view(-1).clamp(0, length), ignore_index=length)
        for logits_BS, positions in ((start_logits_BS, starts), (end_logits_BS, ends))
    ]
    return (losses[0] + losses[1]) / 2
