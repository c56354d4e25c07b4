"""Runs the kernel's cases where a kernel can run: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import run_cases
from magicbert_kernels.ahead_of_time import TRITON_TYPES, compile_for

CASES = Path(__file__).with_name("residual_norm_kernel_cases.py")


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    found = run_cases(CASES, interpret=True)
    assert found["passed"] >= 72
    assert found["skipped"] == 2, "only what needs a GPU is left out"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernel_on_the_gpu():
    assert run_cases(CASES, interpret=False)["passed"] >= 72


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
