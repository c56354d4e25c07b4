"""A supernet whose states are compared with a teacher's while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.state_matching import HiddenPair, StateMatching
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.supernet import SupernetOutput


@dataclass(frozen=True)
class TaughtOutput(SupernetOutput):
    """What one path computes, and the states that a teacher's are compared with.

    Attributes:
        states: ``[rows, length, width]`` after some layers, by number; 0 = the embeddings.
        segments: of the batch.
    """

    states: Mapping[int, Tensor]
    segments: Segments


class TaughtSupernet(BertSupernet):
    """A supernet with linear maps to the teacher's widths, where the two differ.

    The maps are trained along and stay behind: a saved, extracted or exported model has none.

    Args:
        space: candidates per layer.
        config: sizes; its ``architecture`` is not read.
        seed: of the initial weights.
        matching: which states are kept.
    """

    left_behind: ClassVar[tuple[str, ...]] = ("hidden_maps.",)

    def __init__(
        self, space: SearchSpace, config: MagicBertConfig, seed: int, matching: StateMatching
    ) -> None:
        super().__init__(space, config, seed)
        self.kept_layers = matching.student_layers()
        self.hidden_maps = nn.ModuleDict(
            {str(pair.student): self.map_of(pair) for pair in matching.hidden if differs(pair)}
        )

    def map_of(self, pair: HiddenPair) -> nn.Linear:
        """Returns a new map from the student's width to the teacher's."""
        name = f"hidden_maps.{pair.student}"
        return self.seeded(name, lambda: nn.Linear(pair.student_width, pair.teacher_width))

    def mapped(self, pair: HiddenPair, state: Tensor) -> Tensor:
        """Returns a state of the student's in the teacher's width."""
        if not differs(pair):
            return state
        output: Tensor = self.hidden_maps[str(pair.student)](state)
        return output

    def forward(
        self, batch: TokenBatch, architecture: Architecture, block_ends: Sequence[int] = ()
    ) -> SupernetOutput:
        """Runs one path; where gradients are on, its output has the kept states too."""
        if not torch.is_grad_enabled():
            return super().forward(batch, architecture, block_ends)
        hidden, segments = self.enter(batch)
        states = {0: hidden}
        for index, name in enumerate(architecture):
            hidden = self.operator(index, name)(hidden, segments)
            states[index + 1] = hidden
        blocks = tuple(states[end] for end in sorted(block_ends))
        kept = {layer: states[layer] for layer in self.kept_layers}
        return TaughtOutput(hidden, blocks, self.valid_positions(segments), kept, segments)


def differs(pair: HiddenPair) -> bool:
    """Returns whether a map has to stand between the two states."""
    return pair.student_width != pair.teacher_width
