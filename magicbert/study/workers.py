"""Units spread over processes; every row is handed to this process as soon as it is there.

A stop (limit of time, Ctrl-C, a unit that failed) reaches every worker between two steps: it keeps
the state of its unit and takes no other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from magicbert.data.workers import end_with_parent
from magicbert.errors import UserError
from magicbert.interrupts import heard_here_alone
from magicbert.study.pieces import Stop
from magicbert.study.rows import Row
from magicbert.study.units import Unit

Work: TypeAlias = Callable[[Unit, Stop], Row | None]
# Called with the number of the worker, then with `arguments`.
OpenWork: TypeAlias = Callable[..., Work]
TakeRow: TypeAlias = Callable[[Unit, Row], None]
SECONDS_BETWEEN_LOOKS = 0.5


class UnitError(Exception):
    """A unit failed, and not by the user's mistake.

    Attributes:
        key: of the unit.
        summary: kind and message of the error, on one line.
        trace: where it happened, as Python prints it.
    """

    def __init__(self, key: str, summary: str, trace: str) -> None:
        super().__init__(key, summary, trace)
        self.key, self.summary, self.trace = key, summary, trace


@dataclass(frozen=True)
class Crew:
    """Who does the units.

    Attributes:
        open_work: top-level function that makes what does a unit, once in every process.
        arguments: of it, after the number of the worker.
        num_workers: processes; 1 = this one.
        is_over: whether time is up.
    """

    open_work: OpenWork
    arguments: tuple[Any, ...]
    num_workers: int
    is_over: Stop

    def do(self, units: Sequence[Unit], take: TakeRow) -> bool:
        """Does units and hands over their rows; returns whether all are done.

        Raises:
            UnitError: a unit failed. Rows that were ready by then have been handed over.
            UserError: a unit met a mistake of the user's, or a worker was killed.
        """
        if not units:
            return True
        if self.num_workers == 1 or len(units) == 1:
            return self.do_here(units, take)
        try:
            return self.do_in_processes(units, take)
        except BrokenProcessPool as error:
            raise UserError(
                f"a worker process died (out of memory?) with {self.num_workers} of them; set "
                "ranking.num_workers lower and give the same command again: finished units are kept"
            ) from error

    def do_here(self, units: Iterable[Unit], take: TakeRow) -> bool:
        """Does the units in this process, on one thread as the workers do."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            work = self.open_work(0, *self.arguments)
            for unit in units:
                row = None if self.is_over() else attempt(work, unit, self.is_over)
                if row is None:
                    return False
                take(unit, row)
            return True
        finally:
            torch.set_num_threads(threads)

    def do_in_processes(self, units: Sequence[Unit], take: TakeRow) -> bool:
        """Does the units in as many processes as there are workers."""
        # Spawned, not forked: CUDA and the threads of other libraries do not outlive a fork.
        context = multiprocessing.get_context("spawn")
        stop, numbers = context.Event(), context.Value("i", 0)
        pool = ProcessPoolExecutor(
            min(self.num_workers, len(units)),
            mp_context=context,
            initializer=_start_worker,
            initargs=(stop, numbers, self.open_work, self.arguments),
        )
        running: dict[Future[Row | None], Unit] = {}
        waiting, num_rows = deque(units), 0
        try:
            while running or (waiting and not stop.is_set()):
                while waiting and len(running) < self.num_workers and not stop.is_set():
                    unit = waiting.popleft()
                    with heard_here_alone():  # the pool may start a process here
                        running[pool.submit(_do_unit, unit)] = unit
                num_rows += hand_over(running, take)
                if self.is_over():
                    stop.set()
            return num_rows == len(units)
        except BaseException:
            stop.set()
            keep_finished(running, take)
            raise
        finally:
            # A worker that has only begun to import still needs what this process lent to it.
            pool.shutdown(cancel_futures=True)


def attempt(work: Work, unit: Unit, stop: Stop) -> Row | None:
    """Does one unit; an error that is not the user's becomes a `UnitError`."""
    try:
        return work(unit, stop)
    except UserError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnitError(unit.key, text, traceback.format_exc()) from error


def hand_over(running: dict[Future[Row | None], Unit], take: TakeRow) -> int:
    """Waits a moment for units to end; returns how many rows were taken."""
    done, _ = wait(running, timeout=SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
    num_rows = 0
    for future in done:
        unit, row = running.pop(future), future.result()
        if row is not None:
            take(unit, row)
            num_rows += 1
    return num_rows


def keep_finished(running: dict[Future[Row | None], Unit], take: TakeRow) -> None:
    """Waits until the running units have stopped and takes the rows of those that were through."""
    done, _ = wait(running)
    for future in done:
        row = None if future.cancelled() or future.exception() else future.result()
        if row is not None:
            take(running[future], row)


@dataclass
class Place:
    """What a worker process holds.

    Attributes:
        number: of the worker.
        stop: event that ends its unit.
        open_work: makes what does a unit.
        arguments: of it.
        work: what it made, from the first unit on.
    """

    number: int
    stop: Any
    open_work: OpenWork
    arguments: tuple[Any, ...]
    work: Work | None = None


_PLACES: list[Place] = []


def _start_worker(stop: Any, numbers: Any, open_work: OpenWork, arguments: tuple[Any, ...]) -> None:
    """Makes this process ready: one thread, no signals of its own, and an end with its parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with numbers.get_lock():
        _PLACES.append(Place(numbers.value, stop, open_work, arguments))
        numbers.value += 1


def _do_unit(unit: Unit) -> Row | None:
    """Does one unit in a worker; an error in opening is one of the first unit."""

    def work(unit: Unit, stop: Stop) -> Row | None:
        if stop():
            return None
        if place.work is None:
            place.work = place.open_work(place.number, *place.arguments)
        return place.work(unit, stop)

    (place,) = _PLACES
    return attempt(work, unit, place.stop.is_set)


def deadline(minutes: float) -> Stop:
    """Returns whether so many minutes have passed since now; 0 = never."""
    if not minutes:
        return lambda: False
    end = time.monotonic() + 60 * minutes
    return lambda: time.monotonic() >= end
