"""How long a contender takes: processor time on a CPU, events and graph replays on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

from magicbert.bench.registry import AbsentError, Contender

CPU_MODES = ("cpu", "wall")
LAUNCHES, REPLAYS = "launches", "replays"
NUM_WARM_CALLS = 3


class Instrument(Protocol):
    """Measures calls in one way or several at once.

    Attributes:
        modes: names of what it measures; the first is what ratios are shown of.
    """

    modes: tuple[str, ...]

    def ready(self, contender: Contender, num_sets: int) -> Callable[[int], object]:
        """Returns what is called in turns; raises `AbsentError` if that cannot be measured."""

    def seconds(self, call: Callable[[int], object], num_calls: int) -> dict[str, float]:
        """Returns the seconds of one call, the mean of several, by mode."""


class ProcessorClock:
    """Processor time of this process, and time on the wall beside it."""

    modes: tuple[str, ...] = CPU_MODES

    def ready(self, contender: Contender, num_sets: int) -> Callable[[int], object]:
        """Calls the contender once for each input set."""
        for index in range(num_sets):
            contender.call(index)
        return contender.call

    def seconds(self, call: Callable[[int], object], num_calls: int) -> dict[str, float]:
        """Returns seconds of one call."""
        cpu, wall = time.process_time(), time.perf_counter()
        for index in range(num_calls):
            call(index)
        spans = time.process_time() - cpu, time.perf_counter() - wall
        return {mode: span / num_calls for mode, span in zip(self.modes, spans, strict=True)}


class DeviceEvents:
    """Device time between two CUDA events with plain launches: a slow host shows in it."""

    modes: tuple[str, ...] = (LAUNCHES,)

    def ready(self, contender: Contender, num_sets: int) -> Callable[[int], object]:
        """Calls the contender a few times for each input set."""
        for index in range(NUM_WARM_CALLS * num_sets):
            contender.call(index)
        return contender.call

    def seconds(self, call: Callable[[int], object], num_calls: int) -> dict[str, float]:
        """Returns seconds of one call."""
        start, end = (new_event() for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for index in range(num_calls):
            call(index)
        end.record()
        torch.cuda.synchronize()
        milliseconds = start.elapsed_time(end)
        return {self.modes[0]: milliseconds / 1e3 / num_calls}


class GraphReplays(DeviceEvents):
    """The same with each call captured in a CUDA graph: what the device itself needs.

    Everything runs on the current stream, which must not be the default one: autograd runs a
    backward on the stream of its forward, and that must be the stream of the capture.
    """

    modes: tuple[str, ...] = (REPLAYS,)

    def ready(self, contender: Contender, num_sets: int) -> Callable[[int], object]:
        """Captures one graph for each input set; they share memory, only their time counts."""
        super().ready(contender, num_sets)
        torch.cuda.synchronize()
        pool = torch.cuda.graph_pool_handle()
        graphs = []
        try:
            for index in range(num_sets):
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                    contender.call(index)
                graphs.append(graph)
        except Exception as error:
            renew_generator()
            raise AbsentError(f"no graph: {first_line(error)}") from error
        return lambda index: graphs[index % num_sets].replay()


def instruments(device: torch.device) -> list[Instrument]:
    """Returns what a device is measured with."""
    if device.type == "cuda":
        return [DeviceEvents(), GraphReplays()]
    return [ProcessorClock()]


def renew_generator() -> None:
    """Gives the current GPU a new random state.

    A capture that breaks off may leave the old one waiting for its end: no dropout would run again.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    state = torch.Generator(device)
    state.manual_seed(torch.initial_seed())
    torch.cuda.default_generators[device.index].graphsafe_set_state(state)


def new_event() -> torch.cuda.Event:
    """Returns an event that keeps the time."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def first_line(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
