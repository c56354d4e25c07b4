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
CASES = Path(__file__).with_name("alignment_kernel_cases.py")


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
    assert num_passed(output) >= 71
    assert "2 skipped" in output  # what only a device can show


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert num_passed(run_cases("0")) >= 73
