"""Weights of several models as rows: all parameters of one part lie in one tensor.

A step takes the rows of the models that train the part, and puts them back. Shapes: H models that
have the part, G of them taken, W weights of the part in one model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StackedPart:
    """What models have of one part: a candidate operator of a layer, or all that paths share.

    Attributes:
        prefix: how the names of its parameters begin, in each model and in the stacked module.
        shapes: of the parameters in one model, by the rest of their names, in the order in which
            they lie in a row.
        values: ``[H, W]``.
        models: numbers of the models that have it, ascending.
    """

    prefix: str
    shapes: Mapping[str, torch.Size]
    values: Tensor
    models: tuple[int, ...]

    @staticmethod
    def of(prefix: str, stacked: Mapping[str, Tensor], models: tuple[int, ...]) -> StackedPart:
        """Returns a part with copies of its weights.

        Args:
            prefix: of their names.
            stacked: each ``[H, ...]``, by the rest of its name; at least one.
            models: that have it.
        """
        shapes = {name: values.shape[1:] for name, values in stacked.items()}
        flat = [values.detach().flatten(1) for values in stacked.values()]
        return StackedPart(prefix, shapes, torch.cat(flat, dim=1), models)

    def named(self, rows: Tensor) -> dict[str, Tensor]:
        """Returns the parameters ``[G, ...]`` that lie in rows ``[G, W]``, as views of them."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = torch.split(rows, sizes, dim=1)
        return {
            self.prefix + name: part.view(-1, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def choose(self, models: tuple[int, ...]) -> ChosenRows:
        """Returns the rows of some of its models, as a leaf that gets gradients."""
        if models == self.models:
            return ChosenRows(self, models, None, self.values.detach().requires_grad_())
        places = torch.tensor([self.models.index(model) for model in models])
        places = places.to(self.values.device, non_blocking=True)
        rows = self.values.index_select(0, places).requires_grad_()
        return ChosenRows(self, models, places, rows)


@dataclass(frozen=True)
class ChosenRows:
    """The rows of the models that train a part in one step.

    Attributes:
        part: whose rows they are.
        models: their numbers.
        places: where they stand among the part's rows, ``[G]``; ``None`` = they are all of them,
            and ``rows`` shares their memory.
        rows: ``[G, W]``.
    """

    part: StackedPart
    models: tuple[int, ...]
    places: Tensor | None
    rows: Tensor

    def take(self, values: Tensor) -> Tensor:
        """Returns the models' share ``[G, ...]`` of ``[H, ...]``; all of it as it is."""
        return values if self.places is None else values.index_select(0, self.places)

    def put(self, values: Tensor, own: Tensor) -> None:
        """Puts back what was taken of ``values`` and then changed in place."""
        if self.places is not None:
            values.index_copy_(0, self.places, own)
