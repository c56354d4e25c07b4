"""What ``engine.forward`` runs: one path's task loss and, if asked, its alignment loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from magicbert.config.sections import AlignmentSection
from magicbert.space import Architecture
from magicbert.supernet.alignment import alignment_sums, combine_blocks, sums_gradient
from magicbert.supernet.objective import Objective
from magicbert.supernet.scoring import evaluation_mode
from magicbert.supernet.supernet import Supernet, block_ends


@dataclass(frozen=True)
class StepPlan:
    """What is the same for every rank and micro-batch of one optimizer step.

    Attributes:
        step: number of the step, from 0.
        architecture: the sampled path.
        anchor: the path it is aligned to; ``None`` = there is none in this step.
        count: loss terms over all ranks and micro-batches.
        num_positions: valid positions over all ranks and micro-batches.
        loss_scale: what the backward will multiply the loss by; not 1 in fp16.
        children: paths whose mean it is aligned to, in place of an anchor; none = no such mean.
    """

    step: int
    architecture: Architecture
    anchor: Architecture | None
    count: int
    num_positions: int
    loss_scale: float = 1.0
    children: tuple[Architecture, ...] = ()

    @property
    def references(self) -> tuple[Architecture, ...]:
        """The paths that the sampled one is aligned to: to their mean, if there are several."""
        return (self.anchor,) if self.anchor is not None else self.children


class TrainingModule(nn.Module):
    """Supernet, objective and alignment behind one ``forward``.

    Args:
        supernet: the model; its parameters are the module's only ones.
        objective: the task loss.
        alignment: MAGIC-A's settings.
        backend: which alignment kernel to use.
    """

    def __init__(
        self,
        supernet: Supernet,
        objective: Objective,
        alignment: AlignmentSection,
        backend: Literal["triton", "torch"] = "torch",
    ) -> None:
        super().__init__()
        self.supernet = supernet
        self.objective = objective
        self.alignment = alignment
        self.backend = backend
        num_layers = supernet.space.num_layers
        self.block_ends = block_ends(num_layers, min(alignment.num_blocks, num_layers))

    def forward(self, batch: Any, plan: StepPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the losses of one micro-batch, each divided by its global count.

        Summed over micro-batches and ranks, the parts are the means of the step.

        Returns:
            The scalar to differentiate, then detached: the task loss, and the alignment loss
            before its weight (zero where there is no anchor). A plain tuple, because DeepSpeed
            hangs its hooks on the tensors of one.
        """
        if not plan.references:
            loss = self.objective(self.supernet, batch, plan.architecture)
            task = loss.loss_sum / max(plan.count, 1)
            return task, task.detach(), torch.zeros_like(task)
        anchors = self.reference_outputs(batch, plan)
        loss = self.objective(self.supernet, batch, plan.architecture, self.block_ends)
        task = loss.loss_sum / max(plan.count, 1)
        output = loss.output
        num_positions = max(plan.num_positions, 1)
        form, weight = self.alignment.form, self.alignment.weight
        upstream = sums_gradient(form, len(anchors), num_positions, weight, plan.loss_scale)
        sums = alignment_sums(output.block_outputs, anchors, output.valid, self.backend, upstream)
        aligned = combine_blocks(sums / num_positions, form)
        return task + weight * aligned, task.detach(), aligned.detach()

    def reference_outputs(self, batch: Any, plan: StepPlan) -> Sequence[Tensor]:
        """Returns the block outputs to be aligned to: the anchor's, or the children's mean.

        Without dropout and without gradients; of several children, the sums alone are held.
        """
        sums: list[Tensor] = []
        for path in plan.references:
            with evaluation_mode(self.supernet, path):
                outputs = self.supernet(batch, path, self.block_ends).block_outputs
            sums = [a + b for a, b in zip(sums, outputs, strict=True)] if sums else list(outputs)
        num_paths = len(plan.references)
        return sums if num_paths == 1 else [total / num_paths for total in sums]
