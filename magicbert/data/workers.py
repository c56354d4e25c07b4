"""Work spread over processes, with results in the order of the items."""

from __future__ import annotations

import collections
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from magicbert.errors import UserError
from magicbert.interrupts import heard_here_alone

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yields ``function(item)`` for each item, in order, a bounded number of items ahead.

    Args:
        function: top-level function.
        items: read as workers become free, never all at once.
        num_workers: processes; 1 = this one.
        start: called once in every process before its first item.
        arguments: of ``start``.

    Raises:
        UserError: a worker was killed, most often for want of memory.
    """
    if num_workers == 1:
        if start is not None:
            start(*arguments)
        yield from map(function, items)
        return
    try:
        yield from _map_in_processes(function, items, num_workers, start, arguments)
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker process died (out of memory?) with {num_workers} of them; "
            "set shards.num_workers lower and run the same command again"
        ) from error


def worker_count(wanted: int) -> int:
    """Returns the number of processes; 0 = one per core this process may use."""
    return wanted or len(os.sched_getaffinity(0))


def _map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_workers: int,
    start: Callable[..., None] | None,
    arguments: tuple[Any, ...],
) -> Iterator[Result]:
    # Spawned, not forked: a fork would copy the threads' locks of tokenizers and Arrow.
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(start, arguments),
    )
    window: collections.deque[Future[Result]] = collections.deque()
    try:
        for item in items:
            with heard_here_alone():  # the pool may start a process here
                window.append(pool.submit(function, item))
            if len(window) > 2 * num_workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process, one core
    threading.Thread(target=end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def end_with_parent() -> None:
    """Ends this process when the parent was killed; the pool itself would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
