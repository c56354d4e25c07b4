"""The depthwise convolution on a CPU: the library's and the shifted products are one formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from magicbert.bert.modeling.depthwise import DepthwiseConvolution, ShiftedProducts
from magicbert.bert.modeling.image_convolution import convolve_rows, suits_library, tap_gradients
from magicbert.bert.modeling.segments import Segments

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def with_gradients(function, inputs, *rest):
    output = function(*inputs, *rest)
    upstream = draw(*output.shape, seed=9).detach()
    return (output.detach(), *torch.autograd.grad(output, inputs, upstream))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 8), (2, 2, 5), (5, 12, 16), (2, 700, 96)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_the_library_computes_what_shifted_products_do(kernel_size, shape):
    inputs = (draw(*shape), draw(kernel_size, shape[2], seed=1), draw(shape[2], seed=2))
    given = with_gradients(convolve_rows, inputs)
    wanted = with_gradients(ShiftedProducts.apply, inputs, Segments.full(shape[1], CPU))
    assert all(tensor.is_contiguous() for tensor in given[:2])
    for ours, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_rows_and_gradients_that_are_not_contiguous(kernel_size):
    hidden = draw(12, 5, 16).transpose(0, 1)
    inputs = (hidden, draw(16, kernel_size, seed=1).t(), draw(16, seed=2))
    full = Segments.full(12, CPU)
    for sum_up in (torch.sum, lambda output: output.transpose(0, 1)[::2].square().sum()):
        given = torch.autograd.grad(sum_up(convolve_rows(*inputs)), inputs)
        wanted = torch.autograd.grad(sum_up(ShiftedProducts.apply(*inputs, full)), inputs)
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_blocks_of_rows_add_up(monkeypatch):
    hidden, gradient = draw(7, 6, 4).detach(), draw(7, 6, 4, seed=1).detach()
    whole = tap_gradients(hidden, gradient, [-2, 3, 9])
    monkeypatch.setattr("magicbert.bert.modeling.image_convolution.BLOCK_ELEMENTS", 2 * 6 * 4)
    torch.testing.assert_close(tap_gradients(hidden, gradient, [-2, 3, 9]), whole)
    torch.testing.assert_close(whole[1], (gradient[:, :3] * hidden[:, 3:]).sum((0, 1)))
    assert (whole[2] == 0).all()


def test_what_the_library_is_for():
    full = Segments.full(6, CPU)
    packed = Segments.of_ids(torch.tensor([[1, 1, 2, 2, 2, 0]]))
    padded = Segments.of_ids(torch.tensor([[1, 1, 1, 1, 0, 0]]))
    hidden = draw(1, 6, 4)
    assert suits_library(hidden, full) == suits_library(hidden, padded)
    assert suits_library(hidden, full) == torch.backends.mkldnn.is_available()
    assert not suits_library(hidden, packed)
    assert not suits_library(hidden.double(), full)
    assert not suits_library(hidden.bfloat16(), full)
    assert not suits_library(hidden[:0], full)


def test_autocast_keeps_the_type_of_the_rows():
    layer, full = DepthwiseConvolution(8, 5, 0.0), Segments.full(6, CPU)
    hidden = draw(2, 6, 8)
    wanted = with_gradients(lambda x: layer(x, full), (hidden,))
    with torch.autocast("cpu", torch.bfloat16):
        given = with_gradients(lambda x: layer(x, full), (hidden,))
    assert all(torch.equal(a, b) for a, b in zip(given, wanted, strict=True))


def test_padding_in_the_library_is_not_seen():
    layer = DepthwiseConvolution(8, 5, 0.0)
    segments = Segments.of_ids(torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]))
    hidden = draw(2, 6, 8).detach()
    clean = layer(hidden, segments)
    hidden[segments.ids == 0] = float("nan")
    assert torch.equal(layer(hidden, segments), clean)
