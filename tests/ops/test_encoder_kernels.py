"""Runs the encoder's cases where kernels can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CASES = {"encoder_kernel_cases.py": 19, "convergence_cases.py": 2}


def run_cases(name: str, interpret: str) -> int:
    """Returns how many of a file's cases passed; none may fail or be skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         str(Path(__file__).with_name(name))],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": interpret, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
    match = re.search(r"(\d+) passed", done.stdout)
    return int(match.group(1)) if match else 0


@pytest.mark.parametrize("name", CASES)
def test_encoder_in_the_interpreter(name: str) -> None:
    pytest.importorskip("triton")
    assert run_cases(name, "1") >= CASES[name]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_encoder_on_the_gpu(name: str) -> None:
    assert run_cases(name, "0") >= CASES[name]
