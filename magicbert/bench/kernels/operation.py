"""A differentiable function as a trial: its inputs, its fp64 reference, its passes, its rivals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from magicbert.bench.registry import Call, Contender, Floor, Lineup, Trial, Verdict

Inputs: TypeAlias = dict[str, Any]
Function: TypeAlias = Callable[..., Any]
Direction: TypeAlias = Literal["forward", "backward", "forward and backward"]
# Together the input sets are larger than this, so that no cache holds them all.
UNCACHED_BYTES = {"cuda": 200 << 20, "cpu": 48 << 20}
MIN_SETS, MAX_SETS = 2, 12
# A contender may be this many times as far off as plain PyTorch in the inputs' type.
ALLOWED = 2.0
# Where that happens to be nearly exact, rounding of the result and of an fp32 sum over all tokens
# are allowed.
ROUNDINGS, SUM_ROUNDINGS = 1.0, 32.0
FRESH_SEED = 987_654_321


@dataclass(frozen=True, slots=True)
class Operation:
    """What is computed.

    Attributes:
        draw: makes the inputs from a seed; tensors and constants by argument name.
        reference: computes it plainly, in any type; takes the inputs as keywords.
        differentiated: names of the inputs whose gradients are wanted.
        floors: the least work of each direction that is measured.
        timed_with: arguments in which timed calls differ from judged ones, such as dropout.
        is_loss: whether its outputs are losses, whose upstream gradient is 1.
        plain: what one would write without thinking of precision, whose error is the measure of
            the others'; ``None`` = the reference in the inputs' type.
    """

    draw: Callable[[int], Inputs]
    reference: Function
    differentiated: tuple[str, ...]
    floors: Mapping[Direction, Floor]
    timed_with: Mapping[str, Any] = field(default_factory=dict)
    is_loss: bool = False
    plain: Function | None = None


def operation_trial(
    operation: Operation,
    direction: Direction,
    rivals: Mapping[str, Callable[[], Function]],
    device: torch.device,
    seed: int,
) -> Trial:
    """Returns the trial of one direction.

    Args:
        operation: what is computed.
        direction: which part is timed.
        rivals: by name, what returns the function, or raises `AbsentError`.
        device: where the inputs are.
        seed: of the timed inputs.
    """
    first = operation.draw(seed)
    count = num_sets(first, device)
    sets = [first, *(operation.draw(seed + index) for index in range(1, count))]
    lineup, functions = Lineup(), {}
    for name, make in rivals.items():

        def timed(name: str = name, make: Callable[[], Function] = make) -> Call:
            functions[name] = make()
            return timed_call(functions[name], operation, direction, sets)

        lineup.add(name, timed)
    floor = operation.floors[direction]
    return Trial(
        lineup, Judge(operation, functions, with_gradients=direction != "forward"), floor,
        units=floor.flops or floor.bytes, num_sets=count,
    )  # fmt: skip


def num_sets(inputs: Inputs, device: torch.device) -> int:
    """Returns how many input sets are larger than the caches."""
    size = sum(t.numel() * t.element_size() for t in tensors_of(inputs))
    limit = UNCACHED_BYTES.get(device.type, UNCACHED_BYTES["cpu"])
    return max(MIN_SETS, min(-(-limit // max(size, 1)), MAX_SETS))


def timed_call(
    function: Function, operation: Operation, direction: Direction, sets: Sequence[Inputs]
) -> Call:
    """Returns what is timed: one direction on the input set of an index.

    A function with a method ``prepare`` gets its inputs in a layout of its own, off the clock.
    """
    prepare = getattr(function, "prepare", lambda inputs: inputs)
    arguments = [prepare({**inputs, **operation.timed_with}) for inputs in sets]
    if direction == "forward":
        return lambda index: function(**arguments[index % len(sets)])
    kind = BackwardAlone if direction == "backward" else ForwardAndBackward
    return kind(function, arguments, operation)


class ForwardAndBackward:
    """Both directions, with an upstream gradient that is made once.

    Args:
        function: what is differentiated.
        arguments: the input sets.
        operation: says whose gradients are wanted.
    """

    def __init__(
        self, function: Function, arguments: Sequence[Inputs], operation: Operation
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.operation = operation
        self.upstream: tuple[Tensor, ...] | None = None

    def outputs(self, index: int) -> tuple[Tensor, ...]:
        """Makes a forward."""
        outputs = outputs_of(self.function(**self.arguments[index]))
        if self.upstream is None:
            self.upstream = upstream_like(outputs, is_loss=self.operation.is_loss)
        return outputs

    def gradients(self, index: int, outputs: tuple[Tensor, ...], *, again: bool = False) -> Any:
        """Makes a backward; ``again`` keeps what the forward saved."""
        assert self.upstream is not None
        inputs, names = self.arguments[index], self.operation.differentiated
        return gradients_of(outputs, inputs, names, self.upstream, retain_graph=again)

    def __call__(self, index: int) -> Any:
        """Returns the gradients."""
        index %= len(self.arguments)
        return self.gradients(index, self.outputs(index))


class BackwardAlone(ForwardAndBackward):
    """The backward alone: a forward is made once per input set, at the first call of each."""

    def __init__(
        self, function: Function, arguments: Sequence[Inputs], operation: Operation
    ) -> None:
        super().__init__(function, arguments, operation)
        self.kept = functools.cache(self.outputs)

    def __call__(self, index: int) -> Any:
        """Returns the gradients; what the forward saved stays."""
        index %= len(self.arguments)
        return self.gradients(index, self.kept(index), again=True)


class Judge:
    """Compares answers on inputs that nobody has seen with the reference in fp64.

    The error is in multiples of the error of plain PyTorch in the inputs' own type.

    Args:
        operation: what is computed.
        functions: by contender, what computes it.
        with_gradients: whether gradients are compared as well.
    """

    def __init__(
        self, operation: Operation, functions: Mapping[str, Function], *, with_gradients: bool
    ) -> None:
        self.operation = operation
        self.functions = functions
        self.with_gradients = with_gradients

    @functools.cached_property
    def inputs(self) -> Inputs:
        """Fresh inputs."""
        return self.operation.draw(FRESH_SEED)

    @functools.cached_property
    def exact(self) -> list[Tensor]:
        """The right answers."""
        wide = {name: widened(value) for name, value in self.inputs.items()}
        return self.answers(self.operation.reference, wide)

    @functools.cached_property
    def plain_errors(self) -> list[float]:
        """The error of plain PyTorch for each answer."""
        plain = self.answers(self.operation.plain or self.operation.reference, self.inputs)
        return [
            largest(answer.double() - exact)
            for answer, exact in zip(plain, self.exact, strict=True)
        ]

    def __call__(self, contender: Contender) -> Verdict:
        """Returns the largest of the answers' errors."""
        answers = self.answers(self.functions[contender.name], self.inputs)
        shapes = [[tensor.shape for tensor in found] for found in (answers, self.exact)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"answers have the shapes {shapes[0]}, not {shapes[1]}")
        errors = [
            largest(answer.double() - exact)
            / (max(plain, rounding(answer.dtype) * largest(exact)) or 1.0)
            for answer, exact, plain in zip(answers, self.exact, self.plain_errors, strict=True)
        ]
        # `max` would pass over NaN, or not, by its place.
        worst = max(errors) if all(error == error for error in errors) else float("nan")
        return Verdict(worst, ALLOWED)

    def answers(self, function: Function, inputs: Inputs) -> list[Tensor]:
        """Returns outputs and, where compared, gradients for a fixed upstream gradient."""
        outputs = outputs_of(function(**inputs))
        if not self.with_gradients:
            return [output.detach() for output in outputs]
        upstream = upstream_like(outputs, is_loss=self.operation.is_loss)
        gradients = gradients_of(outputs, inputs, self.operation.differentiated, upstream)
        return [*(output.detach() for output in outputs), *gradients]


def rounding(dtype: torch.dtype) -> float:
    """Returns the relative error for which an answer of a type cannot be blamed."""
    own, wide = (torch.finfo(kind).eps for kind in (dtype, torch.float32))
    return max(ROUNDINGS * own, SUM_ROUNDINGS * wide)


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """Returns what is differentiable of a function's result, as a tuple."""
    found = result if isinstance(result, tuple | list) else (result,)
    return tuple(tensor for tensor in found if tensor.is_floating_point())


def upstream_like(outputs: Sequence[Tensor], *, is_loss: bool = False) -> tuple[Tensor, ...]:
    """Returns upstream gradients: ones for losses, numbers of all sizes for anything else."""
    make = torch.ones_like if is_loss else waves_like
    return tuple(make(output) for output in outputs)


def waves_like(output: Tensor) -> Tensor:
    """Returns numbers between -1 and 1 that repeat after a prime number of elements."""
    period = torch.arange(1, 998, device=output.device, dtype=torch.float64).mul_(1.7).sin_()
    repeats = -(-output.numel() // period.numel())
    # Rounded once to bf16: the same upstream whatever type an output has.
    values = period.to(torch.bfloat16).to(output.dtype)
    return values.repeat(repeats)[: output.numel()].view(output.shape)


def gradients_of(
    outputs: Sequence[Tensor],
    inputs: Inputs,
    names: Sequence[str],
    upstream: Sequence[Tensor],
    *,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    """Returns the gradients of named inputs; a named list of tensors gives one for each."""
    leaves = [leaf for name in names for leaf in tensors_of({name: inputs[name]})]
    return torch.autograd.grad(outputs, leaves, upstream, retain_graph=retain_graph)


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """Returns all tensors of some inputs, those in lists too."""
    values = [v if isinstance(v, list | tuple) else [v] for v in inputs.values()]
    return [item for value in values for item in value if isinstance(item, Tensor)]


def widened(value: Any) -> Any:
    """Returns fp64 leaves for floating-point tensors, everything else as it is."""
    if isinstance(value, list | tuple):
        return [widened(item) for item in value]
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return value


def largest(tensor: Tensor) -> float:
    """Returns the largest absolute value; 0 for nothing, NaN if there is one."""
    return tensor.abs().max().item() if tensor.numel() else 0.0
