"""Several small trainings in one: their paths run side by side, each by its own rule.

A step of a small model is hundreds of calls, each too short for a core and far too short for a
GPU. Stacked, all models share each call; what one computes does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from magicbert.space import Architecture
from magicbert.supernet.stacked_models import StackedModels, StackedPaths
from magicbert.supernet.stacked_parts import StackedPart
from magicbert.supernet.supernet import SupernetOutput
from magicbert.training.module import StepPlan
from magicbert.training.schedule import learning_rate
from magicbert.training.small_training import SmallTraining
from magicbert.training.stacked_adamw import StackedAdamW


class StackedTraining:
    """Makes the steps of several `SmallTraining`s, up to rounding.

    Methods, settings and seeds may differ; each model has its own batches, paths, anchor, loss,
    clipping and moments. The trainings say where they stand after every step, but their weights and
    moments are those of the last `hand_back`.

    Args:
        trainings: of one tenant, one update rule but for its rate, and one number of steps, all at
            the same step; aligned to an anchor or to nothing.
        models: made of their supernets as they are.
    """

    def __init__(self, trainings: Sequence[SmallTraining], models: StackedModels) -> None:
        first = trainings[0]
        assert all(training.standing.step == first.standing.step for training in trainings)
        self.trainings, self.models, self.device = trainings, models, first.device
        self.optimizer = StackedAdamW(models.parts, first.sections.optimizer, len(trainings))
        self.members = [dict(training.supernet.named_parameters()) for training in trainings]
        self.take_moments()

    @property
    def step(self) -> int:
        """Steps made by each of the trainings."""
        return self.trainings[0].standing.step

    def advance(self) -> Tensor:
        """Makes one step of each; returns their task losses, ``[models]``, still on the device."""
        begun = [training.begin() for training in self.trainings]
        plans = [plan for plan, _ in begun]
        collated = [
            self.models.collate(side_by_side).to(self.device)
            for side_by_side in zip(*(batches for _, batches in begun), strict=True)
        ]
        losses = self.update(plans, collated)
        for model, (training, plan) in enumerate(zip(self.trainings, plans, strict=True)):
            training.account(plan)
            training.update_anchor(plan.step, plan.architecture, partial(self.accuracies, model))
        return losses

    def update(self, plans: Sequence[StepPlan], batches: Sequence[Any]) -> Tensor:
        """Moves all weights by one step; nothing here waits for the device.

        Args:
            plans: of the models.
            batches: collated micro-batches, on the device.

        Returns:
            The task loss of each model, ``[models]``.
        """
        paths = self.models.choose([plan.architecture for plan in plans])
        anchors, ends = self.anchor_paths(plans), self.block_ends(plans)
        counts = torch.tensor([max(plan.count, 1) for plan in plans])
        counts = counts.to(self.device, non_blocking=True)
        total = torch.zeros(len(plans), device=self.device)
        for batch in batches:
            losses, output = self.models.run(batch, paths, ends)
            task = losses / counts
            aligned = self.alignment_loss(plans, output, anchors, batch, ends)
            torch.autograd.backward(task.sum() + aligned)
            total += task.detach()
        self.optimizer.update(paths.chosen, self.rates(plans))
        return total

    def rates(self, plans: Sequence[StepPlan]) -> Tensor:
        """Returns the learning rate of each model, fp64 ``[models]``."""
        sections = [training.sections for training in self.trainings]
        rates = [
            learning_rate(own.optimizer, plan.step, own.training.num_steps)
            for own, plan in zip(sections, plans, strict=True)
        ]
        return torch.tensor(rates, dtype=torch.float64).to(self.device, non_blocking=True)

    def anchor_paths(self, plans: Sequence[StepPlan]) -> StackedPaths | None:
        """Returns the anchors with their weights; ``None`` if no model has one.

        A model without an anchor runs its own path in its place, which is not looked at.
        """
        assert not any(plan.children for plan in plans), "aligned to an anchor or to nothing"
        if not any(plan.anchor for plan in plans):
            return None
        return self.models.choose([plan.anchor or plan.architecture for plan in plans])

    def block_ends(self, plans: Sequence[StepPlan]) -> list[int]:
        """Returns the numbers of layers after which some model is aligned, ascending."""
        modules = [
            training.module
            for training, plan in zip(self.trainings, plans, strict=True)
            if plan.anchor
        ]
        return sorted({end for module in modules for end in module.block_ends})

    def alignment_loss(
        self,
        plans: Sequence[StepPlan],
        output: SupernetOutput,
        anchors: StackedPaths | None,
        batch: Any,
        ends: Sequence[int],
    ) -> Tensor:
        """Returns the sum of the models' alignment losses, each with its own weight."""
        total = torch.zeros((), device=self.device)
        if anchors is None:
            return total
        with torch.no_grad():
            reference = self.models.run_blocks(batch, anchors, ends)
        for model, (training, plan) in enumerate(zip(self.trainings, plans, strict=True)):
            if plan.anchor is None:
                continue
            module = training.module
            wanted = [place for place, end in enumerate(ends) if end in module.block_ends]
            own = self.part_of(output, model, wanted)
            targets = self.part_of(reference, model, wanted).block_outputs
            total = total + module.alignment.weight * module.alignment_loss(targets, own, plan)
        return total

    def part_of(
        self, output: SupernetOutput, model: int, wanted: Collection[int]
    ) -> SupernetOutput:
        """Returns one model's rows, of those block outputs that stand at some places."""
        num_rows = len(output.hidden) // len(self.trainings)
        own = slice(model * num_rows, (model + 1) * num_rows)
        return SupernetOutput(
            output.hidden[own],
            tuple(output.block_outputs[place][own] for place in wanted),
            None if output.valid is None else output.valid[own],
        )

    def accuracies(
        self, model: int, paths: Collection[Architecture]
    ) -> Mapping[Architecture, float]:
        """Scores paths of one model for its anchor policy."""
        self.hand_back(model)
        return self.trainings[model].accuracies(paths)

    @torch.no_grad()
    def hand_back(self, *models: int) -> None:
        """Copies weights and moments to trainings: to be scored, saved, or gone on with.

        Args:
            models: their numbers; none = all.
        """
        for part in self.models.parts.values():
            moments = self.optimizer.moments[part.prefix]
            trained = moments.steps.tolist()
            values, first, second = (
                part.named(rows) for rows in (part.values, moments.exp_avg, moments.exp_avg_sq)
            )
            for place, model in enumerate(part.models):
                if models and model not in models:
                    continue
                for name in values:
                    own = self.members[model][name]
                    own.copy_(values[name][place])
                    if trained[place]:
                        self.trainings[model].optimizer.state[own] = {
                            "step": moments.steps[place].clone(),
                            "exp_avg": first[name][place].clone(),
                            "exp_avg_sq": second[name][place].clone(),
                        }

    @torch.no_grad()
    def take_moments(self) -> None:
        """Goes on with the moments that the trainings have."""
        for part in self.models.parts.values():
            moments = self.optimizer.moments[part.prefix]
            first, second = part.named(moments.exp_avg), part.named(moments.exp_avg_sq)
            for name in first:
                for place, state in enumerate(self.states(part, name)):
                    if state:
                        moments.steps[place] = state["step"]
                        first[name][place].copy_(state["exp_avg"])
                        second[name][place].copy_(state["exp_avg_sq"])

    def states(self, part: StackedPart, name: str) -> list[Mapping[str, Tensor]]:
        """Returns what the trainings' optimizers know of one parameter; empty = nothing yet."""
        return [
            self.trainings[model].optimizer.state.get(self.members[model][name], {})
            for model in part.models
        ]
