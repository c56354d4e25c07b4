"""The reference of the residual norm: its gradients, its meaning, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from magicbert_kernels.residual_norm import residual_norm, residual_norm_reference
from torch import nn

SEED = torch.tensor(5)


def inputs(*shape):
    generator = torch.Generator().manual_seed(0)
    width = shape[-1]
    sizes = [shape, shape, (width,), (width,), (width,)]
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_the_reference(activation, dropout):
    leaves = [tensor.requires_grad_() for tensor in inputs(3, 6)]

    def function(branch, residual, weight, bias, branch_bias):
        return residual_norm_reference(
            branch, residual, weight, bias, epsilon=1e-5, branch_bias=branch_bias,
            activation=activation, dropout=dropout, seed=SEED, stream=1,
        )  # fmt: skip

    assert torch.autograd.gradcheck(function, leaves)


def test_without_dropout_it_is_torch_s_layer_norm():
    branch, residual, weight, bias, branch_bias = inputs(2, 4, 8)
    norm = nn.LayerNorm(8, eps=1e-5, dtype=torch.float64)
    norm.load_state_dict({"weight": weight, "bias": bias})
    summed = residual + nn.functional.gelu(branch + branch_bias)
    options = {"branch_bias": branch_bias, "activation": "gelu", "backend": "torch"}
    ours = residual_norm(branch, residual, weight, bias, epsilon=1e-5, is_prenorm=True, **options)
    assert torch.equal(ours[0], norm(summed))
    assert torch.equal(ours[1], summed)
    post = residual_norm(branch, residual, weight, bias, epsilon=1e-5, **options)
    assert torch.equal(post, ours[0])


def test_the_output_has_the_type_of_the_residual():
    branch, residual, weight, bias, _ = inputs(2, 8)
    for kind in (torch.float32, torch.bfloat16):
        normed = residual_norm(
            branch.bfloat16(), residual.to(kind), weight.float(), bias.float(),
            epsilon=1e-5, backend="torch",
        )  # fmt: skip
        assert normed.dtype == kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual": torch.ones(2, 9)}, r"branch and residual differ: \(2, 8\)"),
        ({"weight_H": torch.ones(9)}, r"weight_H must be \(8,\) on cpu, got \(9,\)"),
        ({"branch_bias": torch.ones(1, 8)}, r"branch_bias must be \(8,\)"),
        ({"activation": "relu"}, "one of none, gelu, got 'relu'"),
        ({"dropout": 0.1}, "dropout needs a seed"),
        ({"dropout": -0.1, "seed": SEED}, "at least 0 and below 1"),
    ],
)
def test_wrong_inputs_are_refused(change, message):
    right = {
        "branch": torch.ones(2, 8),
        "residual": torch.ones(2, 8),
        "weight_H": torch.ones(8),
        "bias_H": torch.ones(8),
        "epsilon": 1e-5,
        "backend": "torch",
    }
    residual_norm(**right)
    with pytest.raises(ValueError, match=message):
        residual_norm(**right | change)
