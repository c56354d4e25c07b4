"""Runs accounting_cases.py in Triton's interpreter, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_cases import run_cases

CASES = Path(__file__).with_name("accounting_cases.py")


def test_launches_bytes_and_saved_tensors_are_at_their_floors():
    pytest.importorskip("triton")
    found = run_cases(CASES, interpret=True)
    assert found["passed"] > 0
    assert found["skipped"] == 0
