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
from magicbert.study.stacked_pieces import StackRows
from magicbert.study.units import Job, Stack, Unit

# What became of a job; ``None`` if it was told to stop.
Result: TypeAlias = Row | StackRows | None
Work: TypeAlias = Callable[[Job, Stop], Result]
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

    def do(self, jobs: Sequence[Job], take: TakeRow) -> bool:
        """Does units, or stacks of them, and hands over their rows; returns whether all are done.

        Raises:
            UnitError: a unit failed. Rows that were ready by then have been handed over.
            UserError: a unit met a mistake of the user's, or a worker was killed.
        """
        if not jobs:
            return True
        if self.num_workers == 1 or len(jobs) == 1:
            return self.do_here(jobs, take)
        try:
            return self.do_in_processes(jobs, take)
        except BrokenProcessPool as error:
            raise UserError(
                f"a worker process died (out of memory?) with {self.num_workers} of them; set "
                "ranking.num_workers lower and give the same command again: finished units are kept"
            ) from error

    def do_here(self, jobs: Iterable[Job], take: TakeRow) -> bool:
        """Does the jobs in this process, on one thread as the workers do."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            work = self.open_work(0, *self.arguments)
            for job in jobs:
                result = None if self.is_over() else attempt(work, job, self.is_over)
                if not take_result(job, result, take):
                    return False
            return True
        finally:
            torch.set_num_threads(threads)

    def do_in_processes(self, jobs: Sequence[Job], take: TakeRow) -> bool:
        """Does the jobs in as many processes as there are workers."""
        # Spawned, not forked: CUDA and the threads of other libraries do not outlive a fork.
        context = multiprocessing.get_context("spawn")
        stop, numbers = context.Event(), context.Value("i", 0)
        pool = ProcessPoolExecutor(
            min(self.num_workers, len(jobs)),
            mp_context=context,
            initializer=_start_worker,
            initargs=(stop, numbers, self.open_work, self.arguments),
        )
        running: dict[Future[Result], Job] = {}
        waiting, num_done = deque(jobs), 0
        try:
            while running or (waiting and not stop.is_set()):
                while waiting and len(running) < self.num_workers and not stop.is_set():
                    job = waiting.popleft()
                    with heard_here_alone():  # the pool may start a process here
                        running[pool.submit(_do_job, job)] = job
                num_done += hand_over(running, take)
                if self.is_over():
                    stop.set()
            return num_done == len(jobs)
        except BaseException:
            stop.set()
            keep_finished(running, take)
            raise
        finally:
            # A worker that has only begun to import still needs what this process lent to it.
            pool.shutdown(cancel_futures=True)


def attempt(work: Work, job: Job, stop: Stop) -> Result:
    """Does one job; an error that is not the user's becomes a `UnitError`."""
    try:
        return work(job, stop)
    except UserError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnitError(job.key, text, traceback.format_exc()) from error


def take_result(job: Job, result: Result, take: TakeRow) -> bool:
    """Hands over the rows of a job; returns whether it is done.

    Raises:
        UserError: a unit of a stack has no row; the others' have been handed over.
    """
    take_rows(job, result, take)
    if isinstance(result, StackRows):
        if result.problem is not None:
            raise result.problem
        return result.is_over
    return result is not None


def take_rows(job: Job, result: Result, take: TakeRow) -> None:
    """Hands over the rows of a job, if there are any."""
    if isinstance(result, StackRows):
        for unit, row in result.rows:
            take(unit, row)
    elif result is not None:
        assert not isinstance(job, Stack), "a stack has a row for each unit"
        take(job, result)


def hand_over(running: dict[Future[Result], Job], take: TakeRow) -> int:
    """Waits a moment for jobs to end; returns how many are done."""
    ended, _ = wait(running, timeout=SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
    num_done = 0
    for future in ended:
        job, result = running.pop(future), future.result()
        num_done += take_result(job, result, take)
    return num_done


def keep_finished(running: dict[Future[Result], Job], take: TakeRow) -> None:
    """Waits until the running jobs have stopped and takes the rows of those that were through."""
    done, _ = wait(running)
    for future in done:
        if not future.cancelled() and future.exception() is None:
            take_rows(running[future], future.result(), take)


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


def _do_job(job: Job) -> Result:
    """Does one job in a worker; an error in opening is one of the first job."""

    def work(job: Job, stop: Stop) -> Result:
        if stop():
            return None
        if place.work is None:
            place.work = place.open_work(place.number, *place.arguments)
        return place.work(job, stop)

    (place,) = _PLACES
    return attempt(work, job, place.stop.is_set)


def deadline(minutes: float) -> Stop:
    """Returns whether so many minutes have passed since now; 0 = never."""
    if not minutes:
        return lambda: False
    end = time.monotonic() + 60 * minutes
    return lambda: time.monotonic() >= end
