"""Batches prepared ahead in a background thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

STEPS_AHEAD = 2
Batch = TypeVar("Batch")


class StepSource(Protocol[Batch]):
    """Batches as a pure function of the step."""

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[Batch]:
        """Returns the micro-batches of one rank."""
        ...


class Prefetcher(Generic[Batch]):
    """Yields the batches of one step after another, in the order of the source.

    Use as a context manager, or call `close`: the thread ends with it. An error in the source is
    raised where the batch would have come.

    Args:
        source: batches as a pure function of the step.
        rank: this process.
        num_ranks: number of processes.
        first_step: step to begin with, such as the one after a checkpoint.

    Attributes:
        seconds_waited: time the consumer stood waiting for batches so far.
    """

    def __init__(
        self, source: StepSource[Batch], rank: int, num_ranks: int, first_step: int = 0
    ) -> None:
        self.seconds_waited = 0.0
        self._source, self._rank, self._num_ranks = source, rank, num_ranks
        self._ready: queue.Queue[list[Batch] | BaseException] = queue.Queue(STEPS_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(first_step,), name="magicbert-batches", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        if self._closed.is_set():
            raise StopIteration
        start = time.perf_counter()
        item = self._ready.get()
        self.seconds_waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """Ends the thread and drops what it had prepared; safe to call twice."""
        self._closed.set()
        while not self._ready.empty():
            self._ready.get_nowait()
        self._thread.join()

    def __enter__(self) -> Prefetcher[Batch]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, step: int) -> None:
        while not self._closed.is_set():
            try:
                item: list[Batch] | BaseException = self._source.step_batches(
                    step, self._rank, self._num_ranks
                )
            except BaseException as error:  # handed to the consumer, which raises it
                item = error
            self._offer(item)
            if isinstance(item, BaseException):
                return
            step += 1

    def _offer(self, item: list[Batch] | BaseException) -> None:
        """Puts an item when there is room, unless the consumer has gone."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
