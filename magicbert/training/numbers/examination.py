"""Where a number first stopped being finite: a bad step is run again with every module watched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.training.module import TrainingModule
from magicbert.training.numbers.late_numbers import Numbers

OPERATOR = re.compile(r"\blayers\.(\d+)\.(\w+)")
MOST_NAMES = 5


def examine(
    module: TrainingModule, numbers: Numbers, seed_dropout: Callable[[int, int], None]
) -> dict[str, Any]:
    """Runs this rank's part of a step again and says what was not finite.

    A skipped step left the weights as they were, and batch, path and dropout are functions of the
    step: what came from the model or the data comes again. What does not is the hardware's.

    Args:
        module: supernet and losses; training mode.
        numbers: the step.
        seed_dropout: sets the random state of (step, micro-batch).

    Returns:
        JSON data; ``first`` is ``None`` where everything was finite this time.
    """
    device = next(module.parameters()).device
    first: str | None = first_bad_weight(module)
    for number, batch in enumerate(numbers.data.micro_batches):
        if first is not None:
            break
        seed_dropout(numbers.plan.step, number)
        first = run_watched(module, batch.to(device), numbers)
    found = OPERATOR.search(first or "")
    return {
        "sample_ids": numbers.data.sample_ids,
        "loss": str(numbers.loss),
        "gradient_norm": str(numbers.norm),
        "first": first,
        "layer": int(found[1]) if found else None,
        "operator": found[2] if found else None,
    }


def first_bad_weight(module: nn.Module) -> str | None:
    """Names the first parameter that is not finite."""
    return next(
        (f"weight {name}" for name, p in module.named_parameters() if not is_finite([p.data])), None
    )


def run_watched(module: TrainingModule, batch: Any, numbers: Numbers) -> str | None:
    """Runs one micro-batch forward and backward; names the first tensor that is not finite."""
    # Compiled code would run past the hooks.
    plainly = torch.compiler.set_stance("force_eager")
    with plainly, watching_outputs(module) as bad, torch.enable_grad():
        loss = module(batch, numbers.plan)[0]
    if bad:
        return f"output of {bad[0]}"
    if not is_finite([loss]):
        return "loss"
    return first_bad_gradient(module, loss)


@contextmanager
def watching_outputs(module: nn.Module) -> Iterator[list[str]]:
    """Gives the names of the modules whose outputs were not finite, in the order of computing."""
    bad: list[str] = []

    def hook_of(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else [output]
            if not is_finite(tensors):
                bad.append(name)

        return hook

    # The module itself is left out: its output is the loss.
    hooks = [m.register_forward_hook(hook_of(n)) for n, m in module.named_modules() if n]
    try:
        yield bad
    finally:
        for hook in hooks:
            hook.remove()


def first_bad_gradient(module: nn.Module, loss: Tensor) -> str | None:
    """Names the last layer's parameter whose gradient is not finite, where backward meets it first.

    `torch.autograd.grad` leaves ``grad`` and the hooks of ZeRO alone.
    """
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad and p.numel()]
    try:
        gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    except RuntimeError as error:
        return f"not examined: {str(error).splitlines()[0]}"
    pairs = zip(named, gradients, strict=True)
    bad = [name for (name, _), g in pairs if g is not None and not is_finite([g])]
    return f"gradient of {', '.join(bad[::-1][:MOST_NAMES])}" if bad else None


def is_finite(tensors: Sequence[Any]) -> bool:
    """Whether all floating-point tensors of a sequence hold finite numbers only."""
    floats = (t for t in tensors if isinstance(t, Tensor) and t.is_floating_point())
    return all(bool(torch.isfinite(tensor).all()) for tensor in floats)
