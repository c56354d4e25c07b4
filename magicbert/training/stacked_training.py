"""Several small trainings in one: their models run side by side, each with its own rule.

A step of a small model is hundreds of calls, each too short for a core and far too short for a
GPU. Stacked, all models share each call; what one computes does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from magicbert.supernet.stacked_models import StackedModels, StackedParameter
from magicbert.training.schedule import learning_rate
from magicbert.training.small_training import SmallTraining

# As torch's clip_grad_norm_: keeps the scale finite where there is no gradient.
CLIP_EPSILON = 1e-6
MOMENTS = ("exp_avg", "exp_avg_sq")


class StackedTraining:
    """Makes the steps of several `SmallTraining`s, up to rounding.

    Each model has its own batches, loss, clipping and moments. The trainings say where they stand
    after every step, but their weights and moments are those of the last `hand_back`.

    Args:
        trainings: of one architecture each, without alignment, of one update rule and one number
            of steps, all at the same step.
        models: made of their supernets as they are.
    """

    def __init__(self, trainings: Sequence[SmallTraining], models: StackedModels) -> None:
        first = trainings[0]
        assert all(training.standing.step == first.standing.step for training in trainings)
        assert not any(training.sections.alignment.enabled for training in trainings)
        self.trainings, self.models = trainings, models
        self.sections, self.device = first.sections, first.device
        self.parameters = list(models.stacked_parameters())
        self.owners = torch.tensor([m for p in self.parameters for m in p.models]).to(self.device)
        self.members = [dict(training.supernet.named_parameters()) for training in trainings]
        self.optimizer = self.new_optimizer()
        self.take_moments()

    def new_optimizer(self) -> torch.optim.AdamW:
        """Returns the rule of the trainings; what is a vector in each of them is not decayed."""
        optimizer, values = self.sections.optimizer, [item.values for item in self.parameters]
        return torch.optim.AdamW(
            [
                {
                    "params": [v for v in values if v.ndim > 2],
                    "weight_decay": optimizer.weight_decay,
                },
                {"params": [v for v in values if v.ndim == 2], "weight_decay": 0.0},
            ],
            lr=optimizer.learning_rate,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            fused=True,
        )

    @property
    def step(self) -> int:
        """Steps made by each of the trainings."""
        return self.trainings[0].standing.step

    def advance(self) -> Tensor:
        """Makes one step of each; returns their losses, ``[models]``, still on the device."""
        step = self.step
        batches = [training.parts.source.step_batches(step, 0, 1) for training in self.trainings]
        plans = [
            training.plan(step, path, own)
            for training, path, own in zip(
                self.trainings, self.models.architectures, batches, strict=True
            )
        ]
        rate = learning_rate(self.sections.optimizer, step, self.sections.training.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        counts = torch.tensor([max(plan.count, 1) for plan in plans])
        collated = [
            self.models.collate(side_by_side) for side_by_side in zip(*batches, strict=True)
        ]
        losses = self.update(
            [batch.to(self.device) for batch in collated],
            counts.to(self.device, non_blocking=True),
        )
        for training, plan in zip(self.trainings, plans, strict=True):
            training.account(plan)
        return losses

    def update(self, batches: Sequence[Any], counts: Tensor) -> Tensor:
        """Moves all weights by one step; nothing here waits for the device.

        Args:
            batches: collated micro-batches, on the device.
            counts: loss terms of each model over all of them, ``[models]``.

        Returns:
            The loss of each model, ``[models]``.
        """
        total = torch.zeros(len(self.trainings), device=self.device)
        for batch in batches:
            losses = self.models(batch) / counts
            losses.sum().backward()
            total += losses.detach()
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def clip(self) -> None:
        """Scales each model's gradients down to the largest norm allowed, by its own norm."""
        largest = self.sections.optimizer.clip_norm
        if not largest:
            return
        gradients = [cast(Tensor, item.values.grad) for item in self.parameters]
        squares = torch.cat([(grad.flatten(1) ** 2).sum(1) for grad in gradients])
        norms = squares.new_zeros(len(self.trainings)).index_add(0, self.owners, squares).sqrt()
        scales = (largest / (norms + CLIP_EPSILON)).clamp(max=1.0)[self.owners]
        parts = torch.split(scales, [len(grad) for grad in gradients])
        for grad, part in zip(gradients, parts, strict=True):
            grad.mul_(part.view(-1, *[1] * (grad.ndim - 1)))

    @torch.no_grad()
    def hand_back(self) -> None:
        """Copies weights and moments to the trainings: to be scored, saved, or gone on with."""
        for item in self.parameters:
            stacked = self.optimizer.state.get(item.values, {})
            for place, (training, own) in enumerate(self.owning(item)):
                own.copy_(item.values[place])
                if stacked:
                    training.optimizer.state[own] = {
                        "step": stacked["step"].clone(),
                        **{name: stacked[name][place].clone() for name in MOMENTS},
                    }

    def take_moments(self) -> None:
        """Goes on with the moments that the trainings have, if they have made a step."""
        for item in self.parameters if self.step else ():
            states = [training.optimizer.state[own] for training, own in self.owning(item)]
            self.optimizer.state[item.values] = {
                "step": states[0]["step"].clone(),
                **{name: torch.stack([state[name] for state in states]) for name in MOMENTS},
            }

    def owning(self, item: StackedParameter) -> list[tuple[SmallTraining, Tensor]]:
        """Returns the trainings that have a parameter, each with its own."""
        return [(self.trainings[model], self.members[model][item.name]) for model in item.models]
