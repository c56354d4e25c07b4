"""Runs the kernel's cases where a kernel can run; what needs none of it, here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from magicbert_kernels.bias_gelu import bias_gelu

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("bias_gelu_kernel_cases.py")


def run_cases(interpret: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": interpret, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def num_passed(output: str) -> int:
    match = re.search(r"(\d+) passed", output)
    return int(match.group(1)) if match else 0


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    output = run_cases("1")
    assert num_passed(output) >= 68
    assert "2 skipped" in output  # what only a device can show


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert num_passed(run_cases("0")) >= 70


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
