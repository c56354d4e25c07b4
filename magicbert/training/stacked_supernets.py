"""Several small trainings of supernets in one: their paths run side by side.

Every step has other paths, so weights are stacked anew in each; clipping, moments and the anchor
are each training's own. Where paths never change, `StackedTraining` does without that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from magicbert.space import Architecture
from magicbert.supernet.stacked_models import StackedModels
from magicbert.supernet.supernet import Supernet, SupernetOutput
from magicbert.training.module import StepPlan
from magicbert.training.small_training import SmallTraining

# Makes one module of a path of each supernet.
StackPaths: TypeAlias = Callable[[Sequence[Supernet], Sequence[Architecture]], StackedModels]


class StackedSupernets:
    """Makes the steps of several `SmallTraining`s, up to rounding.

    Methods, settings and seeds may differ. After every step each training is as it would be by
    itself: it can be scored, saved, or gone on with.

    Args:
        trainings: of one tenant and one number of steps, all at the same step; aligned to an
            anchor or to nothing.
        stack: of the tenant.
    """

    def __init__(self, trainings: Sequence[SmallTraining], stack: StackPaths) -> None:
        first = trainings[0]
        assert all(training.standing.step == first.standing.step for training in trainings)
        self.trainings, self.stack, self.device = trainings, stack, first.device
        self.members = [dict(training.supernet.named_parameters()) for training in trainings]

    @property
    def step(self) -> int:
        """Steps made by each of the trainings."""
        return self.trainings[0].standing.step

    def advance(self) -> Tensor:
        """Makes one step of each; returns their task losses, ``[models]``, still on the device."""
        begun = [training.begin() for training in self.trainings]
        plans = [plan for plan, _ in begun]
        total = torch.zeros(len(plans), device=self.device)
        for side_by_side in zip(*(batches for _, batches in begun), strict=True):
            total += self.backward(plans, side_by_side)
        for training, plan in zip(self.trainings, plans, strict=True):
            training.finish(plan)
        return total

    def hand_back(self) -> None:
        """Weights and moments are the trainings' own: nothing is to be copied."""

    def backward(self, plans: Sequence[StepPlan], batches: Sequence[Any]) -> Tensor:
        """Adds the gradients of a micro-batch of each; returns the task losses, ``[models]``."""
        assert not any(plan.children for plan in plans), "aligned to an anchor or to nothing"
        anchors = {model: plan.anchor for model, plan in enumerate(plans) if plan.anchor}
        ends = {end for model in anchors for end in self.trainings[model].module.block_ends}
        targets = self.anchor_blocks(anchors, batches, ends)
        models = self.stack(
            [training.supernet for training in self.trainings],
            [plan.architecture for plan in plans],
        )
        batch = models.collate(batches).to(self.device)
        output = models.run(batch, ends)
        counts = torch.tensor([max(plan.count, 1) for plan in plans])
        task = models.read_losses(batch, output.hidden) / counts.to(self.device, non_blocking=True)
        loss = task.sum()
        for model, blocks in targets.items():
            module = self.trainings[model].module
            own = part_of(output, model, len(plans), kept_of(ends, module.block_ends))
            aligned = module.alignment_loss(blocks, own, plans[model])
            loss = loss + module.alignment.weight * aligned
        torch.autograd.backward(loss)
        self.hand_over_gradients(models)
        return task.detach()

    @torch.no_grad()
    def anchor_blocks(
        self, anchors: Mapping[int, Architecture], batches: Sequence[Any], ends: Collection[int]
    ) -> dict[int, tuple[Tensor, ...]]:
        """Returns the block outputs of each anchor, by the number of its model."""
        if not anchors:
            return {}
        trainings = {model: self.trainings[model] for model in anchors}
        models = self.stack(
            [training.supernet for training in trainings.values()], list(anchors.values())
        )
        batch = models.collate([batches[model] for model in anchors]).to(self.device)
        output = models.run(batch, ends)
        return {
            model: part_of(
                output, place, len(anchors), kept_of(ends, training.module.block_ends)
            ).block_outputs
            for place, (model, training) in enumerate(trainings.items())
        }

    def hand_over_gradients(self, models: StackedModels) -> None:
        """Adds the gradients of stacked weights to those of the trainings' own."""
        for item in models.stacked_parameters():
            if item.values.grad is None:
                continue
            for model, gradient in zip(item.models, item.values.grad, strict=True):
                own = self.members[model][item.name]
                own.grad = gradient if own.grad is None else own.grad + gradient


def kept_of(ends: Collection[int], wanted: Collection[int]) -> list[int]:
    """Returns which of the kept block outputs a model wants, by their places."""
    return [place for place, end in enumerate(sorted(ends)) if end in wanted]


def part_of(
    output: SupernetOutput, model: int, num_models: int, kept: Sequence[int]
) -> SupernetOutput:
    """Returns one model's rows of what stacked models computed.

    Args:
        output: of all models.
        model: its number.
        num_models: how many there are.
        kept: which of the block outputs to take.
    """
    num_rows = len(output.hidden) // num_models
    own = slice(model * num_rows, (model + 1) * num_rows)
    return SupernetOutput(
        output.hidden[own],
        tuple(output.block_outputs[place][own] for place in kept),
        None if output.valid is None else output.valid[own],
    )
