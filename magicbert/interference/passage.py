"""What passes through a shared operator while a path runs: states forward, one gradient back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.interference.gram import GramMatrix
from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.supernet.supernet import Supernet


@dataclass(frozen=True)
class Passage:
    """One path's passage through one operator.

    Attributes:
        input: hidden state that the operator received, ``[rows, length, hidden]``.
        context: what it received beside it.
        output: what it returned; same shape.
        output_gradient: of the path's mean loss with respect to the output; same shape.
        valid: bool ``[rows, length]``, positions that count; ``None`` = all.
        loss: the path's mean loss.
    """

    input: Tensor
    context: Any
    output: Tensor
    output_gradient: Tensor
    valid: Tensor | None
    loss: float


def pass_through(
    supernet: Supernet, objective: Objective, batch: Any, path: Architecture, layer: int
) -> Passage:
    """Runs a path and keeps what passes through its operator of one layer.

    The operator's output is cut from the graph, so the backward ends there: neither gradients of
    parameters nor the layers in front are held.

    Args:
        supernet: in the mode it is to be measured in; see `dropout_off`.
        objective: the task loss.
        batch: on the supernet's device.
        path: the architecture.
        layer: index of the shared operator's layer, from 0.
    """
    seen: dict[str, Any] = {}

    def cut(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        seen.update(input=given[0].detach(), context=given[1], output=leaf)
        return leaf

    with torch.enable_grad():
        hook = supernet.operator(layer, path[layer]).register_forward_hook(cut)
        try:
            result = objective(supernet, batch, path)
        finally:
            hook.remove()
        loss = result.loss_sum / max(result.count, 1)
        (gradient,) = torch.autograd.grad(loss, seen["output"])
    return Passage(
        seen["input"], seen["context"], seen["output"].detach(), gradient,
        result.output.valid, float(loss.detach()),
    )  # fmt: skip


def gradient_cosines(operator: nn.Module, passages: Sequence[Passage]) -> Tensor:
    """Returns the cosines ``[C, C]`` of the gradients of the whole operator, path by path.

    The operator alone is run again from each path's input; of its parameters one at a time is
    differentiated for all paths, and only their inner products are kept.
    """
    gram = GramMatrix(len(passages))
    with torch.enable_grad():
        outputs = [operator(passage.input, passage.context) for passage in passages]
        for parameter in operator.parameters():
            parts = [
                torch.autograd.grad(
                    output, parameter, passage.output_gradient, retain_graph=True, allow_unused=True
                )[0]
                for output, passage in zip(outputs, passages, strict=True)
            ]
            if parts[0] is not None:
                gram.add(torch.stack([part.flatten() for part in parts]))
    return gram.cosines()


def state_cosines(states: Sequence[Tensor], valid: Tensor | None) -> Tensor:
    """Returns the cosines ``[C, C]`` of hidden states over the valid positions of the batch."""
    kept = [state if valid is None else state[valid] for state in states]
    gram = GramMatrix(len(kept))
    gram.add(torch.stack([state.flatten() for state in kept]))
    return gram.cosines()
