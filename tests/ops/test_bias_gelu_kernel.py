"""Runs the kernel's cases where a kernel can run; what needs none of it, here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import run_cases
from magicbert_kernels.bias_gelu import bias_gelu

CASES = Path(__file__).with_name("bias_gelu_kernel_cases.py")


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    found = run_cases(CASES, interpret=True)
    assert found["passed"] >= 68
    assert found["skipped"] == 2  # what only a device can show


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert run_cases(CASES, interpret=False)["passed"] >= 70


def test_the_torch_backend_is_gelu_of_the_sum():
    inner, bias = torch.randn(4, 6), torch.randn(6)
    torch.testing.assert_close(bias_gelu(inner, bias, backend="torch"), F.gelu(inner + bias))


def test_what_does_not_fit_is_refused():
    inner, bias = torch.zeros(4, 6), torch.zeros(6)
    with pytest.raises(ValueError, match=r"bias must be \[features\]"):
        bias_gelu(inner, torch.zeros(5), backend="torch")
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
        bias_gelu(inner, bias, dropout=1.0, backend="torch")
    with pytest.raises(ValueError, match="dropout needs a seed"):
        bias_gelu(inner, bias, dropout=0.1, backend="torch")
