"""Runs the kernel's cases where a kernel can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("depthwise_convolution_kernel_cases.py")
NUM_CASES = 39


def run_cases(interpret: str) -> dict[str, int]:
    """Returns how many cases had which outcome."""
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
    found = re.findall(r"(\d+) (passed|skipped)", done.stdout)
    return {outcome: int(number) for number, outcome in found}


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    assert run_cases("1") == {"passed": NUM_CASES, "skipped": 2}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert run_cases("0") == {"passed": NUM_CASES + 2}
