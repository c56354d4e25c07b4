"""The dev losses of many paths of one block; each distinct beginning is computed once a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.supernet.supernet import Supernet, SupernetOutput


def path_losses(
    supernet: Supernet,
    objective: Objective,
    batches: Sequence[Any],
    paths: Sequence[Architecture],
) -> dict[Architecture, float]:
    """Returns the mean loss per term of each path.

    The paths are run in their sorted order, and the hidden states of one path's layers are held
    until a path begins otherwise. The sums stay on the device until the end.

    Args:
        supernet: its device is where the batches are.
        objective: reads the loss off a path's output.
        batches: on the device, as the objective's `prepare` returned them.
        paths: at least one, each fitting the space.
    """
    ordered = sorted(set(paths))
    device = next(supernet.parameters()).device
    sums = torch.zeros(len(ordered), dtype=torch.float64, device=device)
    was_training = supernet.training
    supernet.eval()
    with torch.no_grad():
        for batch in batches:
            sums += _losses_of_batch(supernet, objective, batch, ordered)
    supernet.train(was_training)
    count = sum(objective.count(batch) for batch in batches)
    return dict(zip(ordered, (sums / max(count, 1)).tolist(), strict=True))


def _losses_of_batch(
    supernet: Supernet, objective: Objective, batch: Any, ordered: Sequence[Architecture]
) -> Tensor:
    first, context = supernet.enter(batch)
    valid = supernet.valid_positions(context)
    states, before, losses = [first], Architecture(()), []
    for path in ordered:
        shared = _shared_length(before, path)
        del states[shared + 1 :]
        for layer in range(shared, len(path)):
            states.append(supernet.operator(layer, path[layer])(states[-1], context))
        output = SupernetOutput(states[-1], (), valid)
        losses.append(objective.read_loss(supernet, batch, output).loss_sum.double())
        before = path
    return torch.stack(losses)


def _shared_length(one: Architecture, other: Architecture) -> int:
    """Returns how many layers two paths have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
