"""Runs the loss's cases where its kernel can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import run_cases
from magicbert_kernels.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
)

CASES = Path(__file__).with_name("linear_cross_entropy_kernel_cases.py")


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    assert run_cases(CASES, interpret=True)["passed"] >= 66


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert run_cases(CASES, interpret=False)["passed"] >= 66


def test_the_reference_is_differentiable():
    torch.manual_seed(0)
    shapes = [(3, 4), (6, 4), (6,)]
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    labels = torch.tensor([0, 5, 2])
    assert torch.autograd.gradcheck(
        lambda *x: linear_cross_entropy_reference(*x, labels)[0], leaves
    )


def test_doubles_stay_doubles():
    torch.manual_seed(0)
    shapes = [(30, 16), (200, 16), (200,)]
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    labels = torch.randint(200, (30,))
    loss, _ = linear_cross_entropy(*leaves, labels, backend="torch")
    expected, _ = linear_cross_entropy_reference(*leaves, labels)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(3, 5)}, r"hidden must be \(3, 4\)"),
        ({"bias": torch.zeros(5)}, r"bias must be \(6,\)"),
        ({"weight": torch.zeros(6, 4).bfloat16()}, "weight is torch.bfloat16"),
        ({"labels": torch.zeros(3).int()}, "labels must be int64"),
        ({"hidden": torch.zeros(3, 4, device="meta")}, "one device"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    inputs = {
        "hidden": torch.zeros(3, 4),
        "weight": torch.zeros(6, 4),
        "bias": torch.zeros(6),
        "labels": torch.zeros(3, dtype=torch.int64),
    } | change
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(*inputs.values(), backend="torch")
