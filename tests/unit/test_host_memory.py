"""Buffers in host memory, through which an offloaded step's gradients and weights travel."""

from __future__ import annotations

import pytest
import torch

from magicbert.training.path_sparse.offload import HostMemory


def test_gradients_on_the_host_are_copies() -> None:
    gradients = [torch.arange(3.0), torch.arange(5.0)]
    landed = HostMemory(torch.bfloat16).fetch_gradients(gradients)
    for gradient in gradients:
        gradient.fill_(-1.0)
    assert [part.tolist() for part in landed] == [[0, 1, 2], [0, 1, 2, 3, 4]]


def test_a_shorter_path_after_a_longer_one_gets_its_own_values_only() -> None:
    memory = HostMemory(torch.float32)
    memory.fetch_gradients([torch.ones(9)])
    short = memory.fetch_gradients([torch.full((2,), 7.0)])
    assert [part.tolist() for part in short] == [[7.0, 7.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_the_masters_in_the_precision_of_the_model(dtype: torch.dtype) -> None:
    masters = [torch.tensor([0.1, 1.0 + 2**-12]), torch.tensor([3.0])]
    targets = [torch.zeros(2, dtype=dtype), torch.zeros(1, dtype=dtype)]
    HostMemory(dtype).send_weights(masters, targets)
    for master, target in zip(masters, targets, strict=True):
        assert torch.equal(target, master.to(dtype))
