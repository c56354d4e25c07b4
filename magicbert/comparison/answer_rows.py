"""The dev questions of a SQuAD task, which every form of a model answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from magicbert.comparison.dev_scores import Batch
from magicbert.finetune.cell import EVAL_BATCH_SIZE
from magicbert.finetune.squad.encoding import EncodedSquad


@dataclass(frozen=True)
class AnswerRows:
    """Dev questions as windows, in the batches of `magicbert finetune`, and its rule of scores.

    As there, the threshold of "no answer" is each form's own best one.

    Attributes:
        squad: the windows; training windows are not read.
        inputs: names of what the model is called with.
        source: what the questions are, in words.
    """

    squad: EncodedSquad
    inputs: Sequence[str]
    source: str
    beside: tuple[str, ...] = ("exact",)

    @property
    def metric(self) -> str:
        """Name of the score."""
        return self.squad.data.task.main_metric

    @property
    def num_rows(self) -> int:
        """How many questions there are."""
        return len(self.squad.data.dev)

    def batches(self) -> Iterator[Batch]:
        """Yields the inputs, shorter windows first, so that they need little padding."""
        ordered, _ = self.squad.dev_rows().shortest_first()
        for first in range(0, len(ordered), EVAL_BATCH_SIZE):
            batch = self.squad.padding(ordered.rows[first : first + EVAL_BATCH_SIZE])
            yield {name: batch[name] for name in self.inputs}

    def scores(self, outputs: Sequence[Sequence[Tensor]]) -> dict[str, float]:
        """Returns every metric of the task."""
        _, order = self.squad.dev_rows().shortest_first()
        ends = [
            pair
            for starts, stops in outputs
            for pair in zip(starts.double(), stops.double(), strict=True)
        ]
        by_place = dict(zip(order, ends, strict=True))
        return dict(self.squad.judge([by_place[place] for place in range(len(order))]).metrics)
