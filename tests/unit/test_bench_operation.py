"""How `bench kernels` judges and times a differentiable function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from magicbert.bench.kernels.operation import (
    Direction,
    Operation,
    operation_trial,
    upstream_like,
    widened,
)
from magicbert.bench.registry import OWN, AbsentError, Contender, Floor

CPU = torch.device("cpu")


def draw(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 32, generator=generator).to(torch.bfloat16).requires_grad_()
    return {"x": x, "parts": [torch.ones(3, requires_grad=True)], "scale": 3.0}


def plain(x: Tensor, parts: list[Tensor], scale: float, shift: float = 0.0) -> Tensor:
    return x.sin() * scale * parts[0].sum() + shift


def wrong_gradient(x: Tensor, parts: list[Tensor], scale: float, shift: float = 0.0) -> Tensor:
    right = plain(x, parts, scale)
    return right.detach() + 0.9 * (right - right.detach())


def nan_in_one_place(x: Tensor, parts: list[Tensor], scale: float, shift: float = 0.0) -> Tensor:
    result = plain(x, parts, scale)
    return torch.where(torch.arange(32) == 5, float("nan"), result)


def absent() -> Any:
    raise AbsentError("only on a GPU")


def trial_of(direction: Direction, timed_with: dict[str, Any] | None = None) -> Any:
    operation = Operation(
        draw, plain, ("x", "parts"), {direction: Floor(bytes=100)}, timed_with or {}
    )
    functions = {OWN: plain, "wrong gradient": wrong_gradient, "nan": nan_in_one_place}
    rivals = {name: lambda function=function: function for name, function in functions.items()}
    return operation_trial(operation, direction, {**rivals, "liger": absent}, CPU, 0)


@pytest.mark.parametrize(
    ("direction", "right"),
    [
        ("forward", [OWN, "wrong gradient"]),
        ("backward", [OWN]),
        ("forward and backward", [OWN]),
    ],
)
def test_an_answer_and_its_gradients_are_judged_against_fp64(direction, right):
    trial = trial_of(direction)
    found = [c.name for c in trial.lineup.contenders if trial.judge(c).is_right]
    assert found == right
    assert trial.lineup.absent == {"liger": "only on a GPU"}


def test_answers_are_judged_on_inputs_that_are_not_timed():
    """A contender that answers from memory is caught."""
    remembered: list[Tensor] = []

    def from_memory(x: Tensor, parts: list[Tensor], scale: float) -> Tensor:
        if not remembered:
            remembered.append(plain(x, parts, scale))
        return remembered[0]

    operation = Operation(draw, plain, ("x",), {"forward": Floor(bytes=100)})
    trial = operation_trial(operation, "forward", {OWN: lambda: from_memory}, CPU, 0)
    (own,) = trial.lineup.contenders
    own.call(0)
    assert not trial.judge(own).is_right


def test_calls_go_round_the_input_sets_and_give_the_gradients():
    trial = trial_of("forward and backward")
    own = trial.lineup.contenders[0]
    first, second, again = own.call(0), own.call(1), own.call(trial.num_sets)
    assert trial.num_sets > 1
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], second[0])
    assert first[1].shape == (3,)


def test_a_backward_alone_can_be_repeated():
    backward = trial_of("backward").lineup.contenders[0]
    both = trial_of("forward and backward").lineup.contenders[0]
    for _ in range(2):
        assert torch.equal(backward.call(1)[0], both.call(1)[0])


def test_timed_calls_may_differ_from_judged_ones():
    trial = trial_of("forward", {"shift": 100.0})
    own = trial.lineup.contenders[0]
    assert own.call(0).min() > 50
    assert trial.judge(own).is_right
    assert isinstance(own, Contender)


def test_the_upstream_gradient_is_the_same_in_every_type():
    outputs = [torch.zeros(5, 7), torch.zeros(5, 7, dtype=torch.bfloat16)]
    first, low = upstream_like(outputs)
    assert upstream_like([torch.zeros(())], is_loss=True) == (1,)
    assert torch.equal(first, low.float())
    assert first.unique().numel() > 20


def test_inputs_are_widened_as_leaves():
    wide = widened(draw(0)["x"])
    assert (wide.dtype, wide.is_leaf, wide.requires_grad) == (torch.float64, True, True)
    assert widened([torch.ones(2, dtype=torch.int64)])[0].dtype == torch.int64


class InOwnLayout:
    """Takes columns where the others take rows."""

    def prepare(self, inputs: dict[str, Any]) -> dict[str, Any]:
        turned = inputs["x"].detach().t().contiguous().requires_grad_()
        return {**inputs, "x": turned, "is_turned": True}

    def __call__(self, x: Tensor, parts: list[Tensor], scale: float, **layout: bool) -> Tensor:
        return plain(x if layout else x.t(), parts, scale).t()


def test_a_layout_of_its_own_is_made_off_the_clock():
    operation = Operation(draw, plain, ("x",), {"forward and backward": Floor(bytes=100)})
    trial = operation_trial(
        operation, "forward and backward", {OWN: lambda: plain, "turned": InOwnLayout}, CPU, 0
    )
    own, turned = trial.lineup.contenders
    assert turned.call(0)[0].shape == (32, 64)
    assert own.call(0)[0].shape == (64, 32)
