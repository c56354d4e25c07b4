"""AdamW for the rows that several models train in a step; moments and counters are each model's.

The rule is torch's: bias corrections by the steps that a weight has been trained in, decay ahead
of the update and for matrices alone. Each model's gradients are clipped by their own norm.

Shapes: M models, G of them in a group, H that have a part, W weights of the part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from magicbert.config.sections import OptimizerSection
from magicbert.supernet.stacked_parts import ChosenRows, StackedPart

# As torch's clip_grad_norm_: keeps the scale finite where there is no gradient.
CLIP_EPSILON = 1e-6


@dataclass(frozen=True)
class Moments:
    """What AdamW knows of one part.

    Attributes:
        exp_avg: ``[H, W]``.
        exp_avg_sq: ``[H, W]``.
        steps: that each model has trained it in, fp32 ``[H]``.
        decay: weight decay of each weight, ``[W]``.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: Tensor
    decay: Tensor

    @staticmethod
    def of(part: StackedPart, weight_decay: float) -> Moments:
        """Returns the moments of a part that was not trained yet."""
        decays = [
            part.values.new_full((shape.numel(),), weight_decay if len(shape) > 1 else 0.0)
            for shape in part.shapes.values()
        ]
        return Moments(
            torch.zeros_like(part.values),
            torch.zeros_like(part.values),
            torch.zeros(len(part.models), device=part.values.device),
            torch.cat(decays),
        )


class StackedAdamW:
    """Updates chosen rows.

    Attributes:
        moments: of each part, by its prefix.

    Args:
        parts: everything that is trained, by prefix.
        options: of the rule; the learning rate comes with each update.
        num_models: M.
    """

    def __init__(
        self, parts: Mapping[str, StackedPart], options: OptimizerSection, num_models: int
    ) -> None:
        self.options, self.num_models = options, num_models
        self.moments = {
            prefix: Moments.of(part, options.weight_decay) for prefix, part in parts.items()
        }

    @torch.no_grad()
    def update(self, chosen: Sequence[ChosenRows], rates: Tensor) -> None:
        """Moves the rows that have a gradient, and puts them back; nothing waits for the device.

        Args:
            chosen: the rows of a step; their gradients are gone afterwards.
            rates: learning rate of each model, fp64 ``[M]``.
        """
        chosen = [one for one in chosen if one.rows.grad is not None]
        models = torch.tensor([model for one in chosen for model in one.models])
        owners = models.to(rates.device, non_blocking=True)
        sizes = [len(one.models) for one in chosen]
        steps = torch.cat([one.take(self.moments[one.part.prefix].steps) for one in chosen]) + 1
        beta1, beta2 = self.options.beta1, self.options.beta2
        own_rates = rates[owners]
        # Per row: all of them at once, for each of these is a vector of a few numbers.
        factors = torch.stack([
            self.clip_scales(chosen, owners),
            own_rates,
            own_rates / (1 - beta1 ** steps.double()),
            (1 - beta2 ** steps.double()).sqrt(),
        ]).to(chosen[0].rows.dtype)  # fmt: skip
        split = torch.split(steps, sizes), torch.split(factors[..., None], sizes, dim=1)
        for one, own_steps, own in zip(chosen, *split, strict=True):
            self.move(one, own_steps, *own)

    def clip_scales(self, chosen: Sequence[ChosenRows], owners: Tensor) -> Tensor:
        """Returns by what each row's gradient is scaled, fp64: its model's norm is bounded."""
        squares = torch.cat([_gradient(one).double().square().sum(1) for one in chosen])
        if not self.options.clip_norm:
            return torch.ones_like(squares)
        norms = squares.new_zeros(self.num_models).index_add(0, owners, squares).sqrt()
        return (self.options.clip_norm / (norms + CLIP_EPSILON)).clamp(max=1.0)[owners]

    def move(
        self,
        one: ChosenRows,
        steps: Tensor,
        scale: Tensor,
        rate: Tensor,
        step_size: Tensor,
        correction: Tensor,
    ) -> None:
        """Moves the rows of one part.

        Args:
            one: the rows.
            steps: this one included, ``[G]``.
            scale: of the gradients, ``[G, 1]`` as the rest.
            rate: learning rate.
            step_size: the rate over the first moment's bias correction.
            correction: square root of the second moment's.
        """
        moments, gradient = self.moments[one.part.prefix], _gradient(one) * scale
        exp_avg, exp_avg_sq = one.take(moments.exp_avg), one.take(moments.exp_avg_sq)
        weights = one.rows.detach()
        weights.mul_(1 - rate * moments.decay)
        beta1, beta2 = self.options.beta1, self.options.beta2
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = exp_avg_sq.sqrt().div_(correction).add_(self.options.epsilon)
        weights.addcdiv_(exp_avg * step_size, denominator, value=-1)
        one.rows.grad = None
        one.put(one.part.values, weights)
        one.put(moments.exp_avg, exp_avg)
        one.put(moments.exp_avg_sq, exp_avg_sq)
        if one.places is None:
            moments.steps.copy_(steps)
        else:
            one.put(moments.steps, steps)


def _gradient(one: ChosenRows) -> Tensor:
    assert one.rows.grad is not None
    return one.rows.grad
