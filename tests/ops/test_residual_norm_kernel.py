"""Runs the kernel's cases where a kernel can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from magicbert_kernels.ahead_of_time import TRITON_TYPES, compile_for

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("residual_norm_kernel_cases.py")


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
    assert num_passed(output) >= 72
    assert "2 skipped" in output, "only what needs a GPU is left out"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert num_passed(run_cases("0")) >= 72


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TRITON_TYPES, ids=str)
@pytest.mark.parametrize("width", [320, 768, 1024])
def test_no_variant_of_any_width_spills(width, dtype):
    """What training at base width launches is checked with the other kernels."""
    pytest.importorskip("triton")
    from magicbert_kernels.residual_norm.compilations import OTHERS, TRAINED, backward, forward

    for variant in (*TRAINED, *OTHERS):
        for make in (forward, backward):
            resources = compile_for(make(variant, width, dtype), 90)
            assert (resources.spill_bytes, resources.stack_bytes) == (0, 0), (variant, make)
