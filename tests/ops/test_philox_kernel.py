"""Runs the kernel's cases where a kernel can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import run_cases

CASES = Path(__file__).with_name("philox_kernel_cases.py")


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    found = run_cases(CASES, interpret=True)
    assert found["passed"] >= 27
    assert found["skipped"] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert run_cases(CASES, interpret=False)["passed"] >= 27
