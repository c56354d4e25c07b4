"""Runs the kernels' cases where they can run; holds their references to torch's operators."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import run_cases
from magicbert_kernels.mixed_operators import (
    OperatorRows,
    grouped_linear,
    mixed_bias_gelu,
    mixed_depthwise_convolution,
    mixed_depthwise_convolution_reference,
    mixed_gelu_norm,
    mixed_gelu_norm_reference,
)
from magicbert_kernels.mixed_operators.grouped_linear import (
    grouped_product,
    library_product,
    product_by_product,
    takes_grouped_product,
)

CASES = [
    Path(__file__).with_name(f"{name}_cases.py")
    for name in ("mixed_operators_kernel", "mixed_layer")
]
CPU = torch.device("cpu")
NUM_CASES = 66


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    assert run_cases(*CASES, interpret=True)["passed"] >= NUM_CASES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_on_the_gpu() -> None:
    assert run_cases(*CASES, interpret=False)["passed"] >= NUM_CASES


def inputs(
    widths: tuple[int, ...] = (3, 7), num_channels: int = 4
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    weights = [noise(width, num_channels) for width in widths]
    return noise(3, 5, num_channels), weights, [noise(num_channels) for _ in widths]


def test_the_reference_is_torchs_convolution_of_each_segment() -> None:
    hidden, weights, biases = inputs()
    ids = torch.tensor([[1, 1, 1, 2, 2], [1, 1, 0, 0, 0], [1, 2, 2, 2, 2]])
    operators = OperatorRows.of_sizes((1, 2), CPU)
    output = mixed_depthwise_convolution_reference(hidden, weights, biases, operators, ids)
    for row, operator in enumerate((0, 1, 1)):
        for number in ids[row].unique().tolist():
            segment = hidden[row, ids[row] == number]
            weight = weights[operator]
            expected = F.conv1d(
                segment.t()[None], weight.t()[:, None], biases[operator],
                padding=len(weight) // 2, groups=4,
            )  # fmt: skip
            if number == 0:
                expected = biases[operator][None, :, None].expand_as(expected)
            torch.testing.assert_close(output[row, ids[row] == number], expected[0].t())


def test_gradients_of_the_references() -> None:
    hidden, weights, biases = inputs()
    ids = torch.tensor([[1, 1, 1, 2, 2], [1, 1, 0, 0, 0], [1, 2, 2, 2, 2]])
    operators = OperatorRows.of_sizes((1, 2), CPU)

    def convolution(hidden: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return mixed_depthwise_convolution_reference(hidden, given[:2], given[2:], operators, ids)

    def norm(branch: torch.Tensor, residual: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return mixed_gelu_norm_reference(
            branch, residual, given[:2], given[2:4], given[4:], operators, 1e-5
        )

    assert torch.autograd.gradcheck(convolution, (hidden, *weights, *biases))
    vectors = [bias.detach().clone().requires_grad_() for bias in biases * 3]
    residual = hidden.detach().flip(0).requires_grad_()
    assert torch.autograd.gradcheck(norm, (hidden, residual, *vectors))


@pytest.mark.parametrize("sizes", [(3, 1, 2), (6, 0, 0), (0, 0, 6), (1, 5, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_librarys_grouped_product_equals_one_product_per_operator(
    sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    if library_product() is None:
        pytest.skip("this torch has no grouped product")
    operators = OperatorRows.of_sizes(sizes, CPU)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 4, 16, generator=generator).to(dtype)
    weights = [torch.randn(24, 16, generator=generator).to(dtype) for _ in sizes]
    expected = product_by_product(hidden, weights, operators)
    torch.testing.assert_close(grouped_product(hidden, weights, operators), expected)
    assert torch.equal(grouped_linear(hidden, weights, operators), expected)
    row = 0
    for weight, size in zip(weights, sizes, strict=True):
        for _ in range(size):
            torch.testing.assert_close(expected[row], F.linear(hidden[row], weight))
            row += 1


def test_grouped_linear_follows_autocast_and_has_gradients() -> None:
    operators = OperatorRows.of_sizes((1, 2), CPU)
    hidden = torch.randn(3, 4, 8, requires_grad=True)
    weights = [torch.randn(6, 8, requires_grad=True) for _ in range(2)]
    assert not takes_grouped_product(hidden, weights[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert grouped_linear(hidden, weights, operators).dtype == torch.bfloat16
    output = grouped_linear(hidden, weights, operators)
    assert output.dtype == torch.float32
    gradients = torch.autograd.grad(output.sum(), [hidden, *weights])
    torch.testing.assert_close(gradients[1], hidden[:1].sum((0, 1)).expand(6, 8))


def test_inputs_that_do_not_fit_are_refused() -> None:
    hidden, weights, biases = inputs()
    operators = OperatorRows.of_sizes((1, 2), CPU)
    even = [weights[0][:2], weights[1]]
    for given, message in (
        ((hidden[:2], weights, biases, operators, None), "3 rows need"),
        ((hidden, even, biases, operators, None), "need filters"),
        ((hidden, weights[:1], biases, operators, None), "need filters"),
        ((hidden, weights, biases[:1], operators, None), "need vectors"),
        ((hidden, weights, biases, operators, torch.ones(3, 4)), "segment ids must be"),
    ):
        with pytest.raises(ValueError, match=message):
            mixed_depthwise_convolution(*given, backend="torch")
    with pytest.raises(ValueError, match="need vectors"):
        mixed_bias_gelu(hidden, [biases[0]], operators, backend="torch")
    with pytest.raises(ValueError, match="residual"):
        mixed_gelu_norm(
            hidden, hidden[:, 1:], biases, biases, biases, operators, epsilon=1e-5, backend="torch"
        )
