"""Runs the kernel's cases where a kernel can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import run_cases

CASES = Path(__file__).with_name("depthwise_convolution_kernel_cases.py")
NUM_CASES = 39


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    assert run_cases(CASES, interpret=True) == {"passed": NUM_CASES, "skipped": 2}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert run_cases(CASES, interpret=False) == {"passed": NUM_CASES + 2}
