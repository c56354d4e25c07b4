"""A rank that has done its work ends with its exit code, whatever breaks as interpreters end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ranks import free_port, rank_environment, run_ranks

pytestmark = pytest.mark.distributed
ABORTED = -6


def test_ranks_that_have_worked_end_well(tmp_path: Path) -> None:
    found = run_ranks("leaving_worker:finishes", 2, tmp_path)
    assert found == ["rank 0 has worked", "rank 1 has worked"]


@pytest.mark.parametrize(
    ("code", "is_joined", "expected"),
    [(None, True, 0), (2, True, 2), (75, True, 75), (None, False, ABORTED)],
)
def test_the_program_ends_as_it_should_with_a_process_group(
    code: int | None, is_joined: bool, expected: int, tmp_path: Path
) -> None:
    """Without one it ends as usual, and what aborts a usual exit is there to do so."""
    program = (
        "from pathlib import Path; import leaving_worker\n"
        f"leaving_worker.runs(Path({str(tmp_path)!r}), {code}, is_joined={is_joined})\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], env=rank_environment(0, 1, free_port()),
        stdout=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == expected
    assert process.stdout == "the last word"
    assert (tmp_path / "thread-0.txt").read_text() == "the thread was waited for"
    assert (tmp_path / "handler-0.txt").read_text() == "the handler ran"
