"""Dropout on a CPU: its statistics, its gradients, and that a seed repeats it."""

from __future__ import annotations

import math

import pytest
import torch
from magicbert_kernels.host_dropout import add_host_dropout, host_dropout, keep_factors
from torch.utils.checkpoint import checkpoint

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(p):
    """Within five standard deviations of a binomial count."""
    torch.manual_seed(0)
    size = 1_000_003
    num_dropped = int((host_dropout(torch.ones(size), p) == 0).sum())
    exact = round(p * 65536) / 65536
    assert abs(num_dropped - exact * size) <= 5 * math.sqrt(size * exact * (1 - exact))


@pytest.mark.parametrize("p", [0.1, 0.3])
def test_neighbours_are_independent(p):
    """Also those whose decisions come from one word, and those a word or more apart."""
    torch.manual_seed(1)
    size = 1 << 20
    dropped = (keep_factors(torch.empty(size, dtype=torch.float64), p) == 0).double()
    centred = dropped - dropped.mean()
    for lag in (1, 2, 3, 4, 5, 8, 624, 1248, 2496):
        correlation = (centred[lag:] * centred[:-lag]).mean() / centred.square().mean()
        assert abs(correlation.item()) <= 5 / math.sqrt(size)


def test_positions_within_a_word_are_alike():
    torch.manual_seed(2)
    dropped = keep_factors(torch.empty(1 << 18, 4), 0.25) == 0
    assert (dropped.double().mean(0) - 0.25).abs().max() <= 5 * math.sqrt(0.25 * 0.75 / (1 << 18))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 7), (0, 4)])
def test_kept_values_are_scaled_by_the_share_that_is_kept(shape, dtype):
    torch.manual_seed(3)
    values = torch.randn(shape).to(dtype)
    result = host_dropout(values, 0.3)
    factor = torch.tensor(65536 / (65536 - round(0.3 * 65536)), dtype=torch.float64).to(dtype)
    assert result.dtype == dtype
    assert result.shape == values.shape
    assert torch.equal(result, torch.where(result == 0, 0, values * factor))


@pytest.mark.parametrize("dtype", TYPES)
def test_the_gradient_is_dropped_where_the_value_was(dtype):
    torch.manual_seed(4)
    values = torch.randn(40, 9).to(dtype).t().requires_grad_()
    result = host_dropout(values, 0.5)
    upstream = torch.randn(9, 40).to(dtype)
    result.backward(upstream)
    assert torch.equal(values.grad, torch.where(result == 0, 0, upstream * 2))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_residual_is_added_in_the_same_pass(dtype):
    residual, branch = (torch.randn(6, 11).to(dtype).requires_grad_() for _ in range(2))
    torch.manual_seed(5)
    expected = residual + host_dropout(branch, 0.5)
    torch.manual_seed(5)
    result = add_host_dropout(residual, branch, 0.5)
    torch.testing.assert_close(result, expected)
    upstream = torch.randn(6, 11).to(dtype)
    pairs = (torch.autograd.grad(y, (residual, branch), upstream) for y in (result, expected))
    for ours, plain in zip(*pairs, strict=True):
        assert torch.equal(ours, plain)


def test_a_seed_repeats_it_and_the_next_call_differs():
    values = torch.ones(1000)
    torch.manual_seed(6)
    first, second = host_dropout(values, 0.5), host_dropout(values, 0.5)
    torch.manual_seed(6)
    assert torch.equal(host_dropout(values, 0.5), first)
    assert not torch.equal(first, second)


def test_recomputation_drops_the_same():
    weight = torch.randn(8, 8)

    def block(x):
        return host_dropout(x @ weight, 0.5).sin()

    gradients = []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=False)):
        x = torch.linspace(-1, 1, 32).view(4, 8).requires_grad_()
        torch.manual_seed(7)
        run(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_share_outside_its_range_is_refused(p):
    with pytest.raises(ValueError, match="below 1"):
        host_dropout(torch.ones(3), p)


def test_it_is_for_the_cpu():
    with pytest.raises(ValueError, match="for the CPU"):
        add_host_dropout(torch.ones(3, device="meta"), torch.ones(3, device="meta"), 0.1)
