"""A rank that has done its work ends with success, whatever breaks while an interpreter ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ranks import rank_environment, run_ranks

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("kind", ["finishes", "trains", "searches"])
def test_ranks_that_have_worked_end_well(kind: str, tmp_path: Path) -> None:
    found = run_ranks(f"leaving_worker:{kind}", 2, tmp_path)
    assert found == ["rank 0 has worked", "rank 1 has worked"]
    for rank in range(2):
        assert (tmp_path / f"left-{rank}.txt").read_text() == "handlers of the exit ran"


def test_what_was_printed_is_written_and_a_plain_exit_would_abort(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import leaving_worker\n"
        f"leaving_worker.work(0, Path({str(tmp_path)!r}))\n"
    )
    leave = "from magicbert.training.watching.leaving import leave_finished; leave_finished()"
    for ending, expected in ((leave, 0), ("", -6)):
        process = subprocess.run(
            [sys.executable, "-c", code + ending],
            env=rank_environment(0, 1, 0), stdout=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
        assert process.returncode == expected
        assert process.stdout == "the last word of rank 0"
