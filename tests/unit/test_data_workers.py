from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from magicbert.data.workers import map_in_order, worker_count
from magicbert.errors import UserError


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_the_order_of_the_items(num_workers: int) -> None:
    assert list(map_in_order(operator.neg, range(50), num_workers=num_workers)) == [
        -number for number in range(50)
    ]


def test_items_are_read_as_workers_become_free() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = map_in_order(operator.neg, items(), num_workers=2)
    next(results)
    assert len(read) <= 6
    results.close()  # type: ignore[attr-defined]


def test_a_dead_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"a worker process died .* shards\.num_workers lower"):
        list(map_in_order(os._exit, [1, 1], num_workers=2))


def test_errors_of_the_function_reach_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_in_order(int, ["1", "x"], num_workers=2))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_when_their_parent_is_killed() -> None:
    program = (
        "import multiprocessing, time;"
        "from magicbert.data.workers import map_in_order;"
        "results = map_in_order(time.sleep, [0, 0, 0, 600, 600, 600], num_workers=2);"
        "next(results);"
        "print(*[child.pid for child in multiprocessing.active_children()], flush=True);"
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        children = [int(word) for word in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert len(children) == 2

    deadline = time.monotonic() + 60
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_no_number_of_workers_means_one_per_core() -> None:
    assert worker_count(0) == len(os.sched_getaffinity(0))
    assert worker_count(3) == 3
