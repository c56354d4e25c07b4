"""One block of NAS-BERT's supernet, trained to turn a teacher's hidden state into its next.

A path names the block's width and an operator per layer (`magicbert.space.blocks`). Linear maps
lead from the teacher's width to the block's and back (NAS-BERT 3.2.1); each width has its own.
Shapes: B rows, S positions, T width of the teacher, W width of the block.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from magicbert_kernels import alignment_loss
from torch import Tensor, nn

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.fused import backend_on
from magicbert.bert.modeling.operator_names import with_width
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.spaces import check_operators
from magicbert.bert.supernet import seeded_module
from magicbert.bert.taught_batches import BlockBatch, TaughtBatch
from magicbert.space import Architecture
from magicbert.space.blocks import BlockSpace, width_of_name
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.supernet import Supernet, SupernetOutput


class OperatorPerWidth(nn.ModuleDict):
    """One operator at every width of a block; the hidden state's own says which one runs."""

    def forward(self, hidden: Tensor, segments: Segments) -> Tensor:
        """Returns the next hidden state; same shape."""
        output: Tensor = self[str(hidden.shape[-1])](hidden, segments)
        return output


class EnteringMap(nn.Module):
    """The map from the teacher's width to one of the block's, as the first operator of a path.

    Args:
        teacher_size: width of the teacher's hidden state.
        width: of the block.
    """

    def __init__(self, teacher_size: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(teacher_size, width)

    def forward(self, hidden: Tensor, segments: Segments) -> Tensor:
        """Returns the first hidden state of the block; padded positions are zero."""
        return segments.hide_padding(self.map(hidden))


class BlockSupernet(Supernet):
    """All paths of one block.

    Weights of one width are of no use to another, so each (layer, operator, width) has its own.

    Args:
        blocks: the block's choices.
        config: dropout, epsilon, initial scale and backend; sizes are the space's.
        head_size: width of one attention head; the space's operator ``mha`` means
            width / head_size heads.
        teacher_sizes: widths of the teacher's hidden state ahead of the block and after it.
        seed: of the initial weights, with the block's number.
    """

    def __init__(
        self,
        blocks: BlockSpace,
        config: MagicBertConfig,
        head_size: int,
        teacher_sizes: tuple[int, int],
        seed: str,
    ) -> None:
        self.blocks, self.head_size = blocks, head_size
        check_operators(self.operator_names(), config.hidden_size, "compression.operators")

        def build(key: str, module: Any) -> Any:
            return seeded_module(module, config.initializer_range, f"{seed}:{key}")

        def candidate(layer: int, name: str) -> nn.Module:
            key = f"layers.{layer}.{name}"
            if layer == 0:
                width = width_of_name(name)
                return build(key, lambda: EnteringMap(teacher_sizes[0], width))  # type: ignore[no-any-return]
            names = {str(width): self.operator_name(name, width) for width in blocks.widths}
            return OperatorPerWidth(
                {
                    width: build(f"{key}.{width}", partial(build_operator, full, config))
                    for width, full in names.items()
                }
            )

        super().__init__(blocks.product, candidate)
        self.config = config
        self.leaving = nn.ModuleDict(
            {
                str(width): build(
                    f"leaving.{width}", lambda w=width: nn.Linear(w, teacher_sizes[1])
                )
                for width in blocks.widths
            }
        )

    def operator_name(self, name: str, width: int) -> str:
        """Returns the name that an encoder knows an operator of the block by."""
        return named_at(name, width, self.head_size)

    def operator_names(self) -> Iterable[str]:
        """Yields the names of all operators at all widths."""
        for width in self.blocks.widths:
            for name in self.blocks.operators:
                yield self.operator_name(name, width)

    def enter(self, batch: BlockBatch) -> tuple[Tensor, Segments]:
        """Returns the teacher's hidden state; the path's first choice maps it."""
        return batch.inputs, batch.segments

    def valid_positions(self, context: Segments) -> Tensor | None:
        """Returns where there is no padding; ``None`` = everywhere."""
        return context.valid

    def leave(self, hidden: Tensor) -> Tensor:
        """Maps the block's last hidden state to the teacher's width."""
        output: Tensor = self.leaving[str(hidden.shape[-1])](hidden)
        return output


class BlockRegression(Objective):
    """Squared error between the block's output and the teacher's, mean over its features."""

    def count(self, batch: TaughtBatch | BlockBatch) -> int:
        """Returns the number of positions."""
        return batch.num_tokens

    def num_tokens(self, batch: TaughtBatch | BlockBatch) -> int:
        """Returns the number of positions that are not padding."""
        return batch.num_tokens

    def read_loss(
        self, supernet: Supernet, batch: BlockBatch, output: SupernetOutput
    ) -> LossOutput:
        """Returns the sum over positions; nothing is right or wrong, so ``correct`` is 0."""
        assert isinstance(supernet, BlockSupernet)
        backend = backend_on(supernet.config.backend, output.hidden.device.type)
        predicted = supernet.leave(output.hidden)
        sums = alignment_loss.alignment_sums(
            [predicted], [batch.targets.to(predicted.dtype)], output.valid, backend
        )
        loss_sum = sums.sum()
        correct = torch.zeros((), device=loss_sum.device)
        return LossOutput(loss_sum, batch.num_tokens, output, {"correct": correct})


def named_at(name: str, width: int, head_size: int) -> str:
    """Returns an operator's full name: ``mha`` at width 128 is ``mha2w128`` with heads of 64."""
    full = f"{name}{max(width // head_size, 1)}" if name == "mha" else name
    return with_width(full, width)


def encoder_operators(blocks: BlockSpace, path: Architecture, head_size: int) -> tuple[str, ...]:
    """Returns the operators of an encoder that a path of a block stands for."""
    width, names = blocks.parse(path)
    return tuple(named_at(name, width, head_size) for name in names)
