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
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.scoring import evaluation_mode
from magicbert.supernet.supernet import Supernet, SupernetOutput, block_ends


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
        num_auxiliary: terms of the auxiliary loss over all ranks and micro-batches.
    """

    step: int
    architecture: Architecture
    anchor: Architecture | None
    count: int
    num_positions: int
    loss_scale: float = 1.0
    children: tuple[Architecture, ...] = ()
    num_auxiliary: int = 0

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

    def forward(self, batch: Any, plan: StepPlan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the losses of one micro-batch, each divided by its global count.

        Summed over micro-batches and ranks, the parts are the means of the step. All paths run on
        the batch as the objective prepares it, once.

        Returns:
            The scalar to differentiate, then detached: the task loss, the alignment loss before
            its weight (zero where there is no anchor), and the sums of the objective's logged
            metrics. A plain tuple, because DeepSpeed hangs its hooks on the tensors of one.
        """
        batch = self.objective.prepare(self.supernet, batch)
        anchors = self.reference_outputs(batch, plan) if plan.references else ()
        ends = self.block_ends if plan.references else ()
        output = self.supernet(batch, plan.architecture, ends)
        loss = self.objective.read_loss(self.supernet, batch, output)
        task = self.task_loss(loss, plan)
        if not anchors:
            return task, task.detach(), torch.zeros_like(task), self.logged(loss)
        aligned = self.alignment_loss(anchors, output, plan)
        total = task + self.alignment.weight * aligned
        return total, task.detach(), aligned.detach(), self.logged(loss)

    def alignment_loss(
        self, anchors: Sequence[Tensor], output: SupernetOutput, plan: StepPlan
    ) -> Tensor:
        """Returns a micro-batch's share of the alignment loss, before its weight."""
        num_positions = max(plan.num_positions, 1)
        form, weight = self.alignment.form, self.alignment.weight
        upstream = sums_gradient(form, len(anchors), num_positions, weight, plan.loss_scale)
        sums = alignment_sums(output.block_outputs, anchors, output.valid, self.backend, upstream)
        return combine_blocks(sums / num_positions, form)

    def task_loss(self, loss: LossOutput, plan: StepPlan) -> Tensor:
        """Returns a micro-batch's share of the step's loss: each sum over its own global count."""
        task = loss.weight * loss.loss_sum / max(plan.count, 1)
        if loss.auxiliary is None:
            return task
        return task + loss.auxiliary / max(plan.num_auxiliary, 1)

    def logged(self, loss: LossOutput) -> Tensor:
        """Returns the sums of the logged metrics, fp64, in the objective's order."""
        values = [loss.metrics[name].detach().double() for name in self.objective.logged]
        return torch.stack(values) if values else loss.loss_sum.new_zeros(0, dtype=torch.float64)

    def reference_outputs(self, batch: Any, plan: StepPlan) -> Sequence[Tensor]:
        """Returns the block outputs to be aligned to: the anchor's, or the children's mean.

        They run on the very batch that the sampled path runs on, as the objective prepared it.
        Without dropout and without gradients; of several children, the sums alone are held.
        """
        sums: list[Tensor] = []
        for path in plan.references:
            with evaluation_mode(self.supernet, path):
                outputs = self.supernet(batch, path, self.block_ends).block_outputs
            sums = [a + b for a, b in zip(sums, outputs, strict=True)] if sums else list(outputs)
        num_paths = len(plan.references)
        return sums if num_paths == 1 else [total / num_paths for total in sums]
