"""Runs files of cases where Triton's kernels can run, in a process of their own.

On a CPU kernels run in Triton's interpreter, which counts only if it is asked for before triton is
imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_cases(*files: Path, interpret: bool) -> Counter[str]:
    """Returns how many cases ``passed`` and were ``skipped``; none may fail.

    Args:
        files: what pytest runs.
        interpret: in the interpreter, else on the GPU.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": str(int(interpret)), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = done.stdout.rstrip().rsplit("\n", 1)[-1]
    return Counter({name: int(n) for n, name in re.findall(r"(\d+) (passed|skipped)", summary)})
