"""Runs the encoder's cases where kernels can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import run_cases

CASES = {"encoder_kernel_cases.py": 19, "convergence_cases.py": 2}


@pytest.mark.parametrize(
    "name",
    ["encoder_kernel_cases.py", pytest.param("convergence_cases.py", marks=pytest.mark.slow)],
)
def test_encoder_in_the_interpreter(name: str) -> None:
    pytest.importorskip("triton")
    found = run_cases(Path(__file__).with_name(name), interpret=True)
    assert found["passed"] >= CASES[name]
    assert found["skipped"] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_encoder_on_the_gpu(name: str) -> None:
    found = run_cases(Path(__file__).with_name(name), interpret=False)
    assert found["passed"] >= CASES[name]
    assert found["skipped"] == 0
