"""The parts of a model and whole models, as calls that can be timed.

Weights are new and inputs random: how long they take does not depend on what they hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.embeddings import Embeddings
from magicbert.bert.modeling.heads import ClassificationHead
from magicbert.bert.modeling.modeling_magicbert import MagicBertForSequenceClassification
from magicbert.bert.modeling.operator_names import width_of
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.modeling.segments import Segments
from magicbert.space import Architecture

Call = Callable[[], Any]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class TimedParts:
    """Calls on one batch of full rows, without gradients.

    Attributes:
        config: sizes of the encoder.
        rows: of the batch.
        length: positions of each row.
        dtype: of weights and hidden states.
        device: to run on.
    """

    config: MagicBertConfig
    rows: int
    length: int
    dtype: torch.dtype
    device: torch.device

    def embeddings(self) -> Call:
        """Returns the call from token ids to the first hidden state."""
        embeddings, ids = self._ready(Embeddings(self.config)), self._ids()
        return lambda: run(lambda: embeddings(ids, self._segments()))

    def head(self) -> Call:
        """Returns the call of a classification head on the first position."""
        head, hidden = self._ready(ClassificationHead(self.config)), self._hidden()
        return lambda: run(lambda: head(hidden[:, 0]))

    def operators(self, names: Iterable[str]) -> dict[str, Call]:
        """Returns the call of each operator, alone."""
        return {name: self._operator(name) for name in names}

    def border(self, before: int, after: int) -> Call:
        """Returns the call of the learned map between two widths."""
        transfer, hidden = self._ready(nn.Linear(before, after)), self._hidden(before)
        segments = self._segments()
        return lambda: run(lambda: segments.hide_padding(transfer(hidden)))

    def whole(self, architecture: Architecture) -> Call:
        """Returns the call of a whole classification model."""
        config = copy.deepcopy(self.config)
        config.architecture, config.backend = str(architecture), "auto"
        model, ids = self._ready(MagicBertForSequenceClassification(config)), self._ids()
        return lambda: run(lambda: model(ids))

    def _operator(self, name: str) -> Call:
        operator = self._ready(build_operator(name, self.config))
        hidden = self._hidden(width_of(name, self.config.hidden_size))
        segments = self._segments()
        return lambda: run(lambda: operator(hidden, segments))

    def _ready(self, module: Module) -> Module:
        return module.to(self.device, self.dtype).eval()

    def _ids(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (self.rows, self.length)
        ids = torch.randint(1, self.config.vocab_size, shape, generator=generator)
        return ids.to(self.device)

    def _hidden(self, width: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (self.rows, self.length, width or self.config.hidden_size)
        return torch.randn(shape, generator=generator).to(self.device, self.dtype)

    def _segments(self) -> Segments:
        return Segments.full(self.length, self.device)


def run(call: Call) -> Any:
    """Calls without gradients."""
    with torch.inference_mode():
        return call()
