"""What `bench kernels` would launch on a GPU, in Triton's interpreter: every call and gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from magicbert.bench.kernels.suite import FAMILIES

ROOT = Path(__file__).parents[2]


def test_every_case_calls_its_kernel_and_the_answer_is_right():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("bench_in_interpreter.py"))],
        cwd=ROOT,
        env={
            **os.environ,
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == sum(len(family.directions) for family in FAMILIES)
    assert [line for line in lines if not line.startswith("True ")] == []
