"""Whole models made of trained blocks, scored as they stand between the teacher's ends.

The teacher's embeddings feed the first block, each block's output (at the teacher's width) the
next one, and the teacher's head reads the last: a complete net, before any training of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert.bert.block_supernet import BlockSupernet
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.teacher import Teacher
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture
from magicbert.supernet.scoring import Score

Paths = tuple[Architecture, ...]


class BlockChain:
    """Trained blocks in a row.

    Args:
        teacher: whom the blocks were trained against.
        blocks: in order, in evaluation mode, on the device of the teacher.
    """

    def __init__(self, teacher: Teacher, blocks: Sequence[BlockSupernet]) -> None:
        self.teacher = teacher
        self.blocks = blocks

    @torch.no_grad()
    def scores(self, models: Sequence[Paths], batches: Sequence[TokenBatch]) -> dict[Paths, Score]:
        """Returns the masked-language loss and accuracy of models on fixed batches.

        Models that begin with the same blocks share what these compute.

        Args:
            models: one path per block each.
            batches: on the device.
        """
        ordered = sorted(set(models))
        totals = dict.fromkeys(ordered, Score(0.0, 0, 0))
        for batch in batches:
            found = self._scores_of_batch(ordered, batch)
            totals = {model: totals[model] + found[model] for model in ordered}
        return totals

    def _scores_of_batch(self, ordered: Sequence[Paths], batch: TokenBatch) -> dict[Paths, Score]:
        states, segments = self.teacher.states(batch, (0,))
        stack: list[Tensor] = [states[0]]
        before: Paths = ()
        found = {}
        for model in ordered:
            pairs = enumerate(zip(before, model, strict=False))
            shared = next((at for at, (a, b) in pairs if a != b), len(before))
            del stack[shared + 1 :]
            for block, path in zip(self.blocks[shared:], model[shared:], strict=True):
                stack.append(run_block(block, path, stack[-1], segments))
            found[model] = self._read(stack[-1], batch)
            before = model
        return found

    def _read(self, hidden: Tensor, batch: TokenBatch) -> Score:
        predicted = hidden.flatten(0, 1).index_select(0, batch.predicted_positions)
        logits = self.teacher.logits(predicted).float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        correct = (logits.argmax(-1) == batch.labels).sum()
        return Score(float(loss), int(correct), len(batch.labels))


def run_block(
    block: BlockSupernet, path: Architecture, hidden: Tensor, segments: Segments
) -> Tensor:
    """Returns what a path of a block makes of a hidden state, both at the teacher's width."""
    for layer, name in enumerate(path):
        hidden = block.operator(layer, name)(hidden, segments)
    return segments.hide_padding(block.leave(hidden))
