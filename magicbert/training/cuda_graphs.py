"""``training.cuda_graphs``: an operator's kernels recorded once and launched together.

With few tokens in a batch a GPU waits for launches. A step cannot be recorded as a whole, since
each takes another path; every (layer, operator) can, forward and backward each as one CUDA graph.

A recording reads and writes fixed addresses. The input and the gradient are copied to theirs, the
batch's context once for all operators (`StaticContexts`), the weights are where ZeRO's flat buffers
keep them. What an operator saves for its backward lies in its recording's memory until its layer
runs again: the candidates of one layer share memory, since a path runs one of them, and layers
share none. So a micro-batch's backward must have run before the next forward in training mode;
where it has not, it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from magicbert.errors import UserError
from magicbert.supernet.supernet import Supernet
from magicbert.training.static_contexts import StaticContext, StaticContexts

OptionalTensors = tuple[Tensor | None, ...]
NUM_WARMUPS = 3


class Recorder(Protocol):
    """Records what a function launches."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Runs a function that is about to be recorded: what happens once must have happened."""
        ...

    def record(
        self, function: Callable[[], OptionalTensors]
    ) -> tuple[OptionalTensors, Callable[[], None]]:
        """Returns a function's results, and what computes them again into the same memory."""
        ...


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory, because only one is in use at a time.

    Args:
        device: where the operators run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], None]) -> None:
        """Runs it on a stream of its own; the generator then stands where it stood."""
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.random.fork_rng([self.device]), torch.cuda.stream(stream):
            for _ in range(NUM_WARMUPS):
                function()
        current.wait_stream(stream)

    def record(
        self, function: Callable[[], OptionalTensors]
    ) -> tuple[OptionalTensors, Callable[[], None]]:
        """Captures one graph; other threads, such as NCCL's, may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            results = function()
        return results, graph.replay


@dataclass
class LayerMemory:
    """What the recordings of one layer's candidates share.

    Attributes:
        recorder: records into the layer's pool.
        num_replays: forwards so far; the last one's activations are what the memory holds.
    """

    recorder: Recorder
    num_replays: int = 0


class Recording:
    """Forward and backward of one operator for one shape and form of batch.

    Args:
        forward: the operator's, of hidden state and context.
        parameters: the operator's.
        hidden: an input of the shape to record.
        context: where the batch's context is to be read.
        memory: of the layer.
    """

    def __init__(
        self,
        forward: Callable[[Tensor, Any], Tensor],
        parameters: Sequence[nn.Parameter],
        hidden: Tensor,
        context: StaticContext,
        memory: LayerMemory,
    ) -> None:
        self.forward, self.context, self.memory = forward, context, memory
        self.hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
        self.hidden.copy_(hidden.detach()).requires_grad_()
        self.inputs = (self.hidden, *parameters)
        self.gradient = torch.ones_like(self.hidden)
        memory.recorder.warm_up(self._run_both)
        (output,), self.replay_forward = memory.recorder.record(self._run_forward)
        self.gradients, self.replay_backward = memory.recorder.record(self._run_backward)
        self.output = cast(Tensor, output)

    @property
    def moment(self) -> tuple[int, int]:
        """What tells whether batch and activations are still those of a forward."""
        return self.context.epoch, self.memory.num_replays

    def _run_forward(self) -> OptionalTensors:
        with torch.enable_grad():
            self.live = self.forward(self.hidden, self.context.value)
        return (self.live.detach(),)

    def _run_backward(self) -> OptionalTensors:
        return torch.autograd.grad(self.live, self.inputs, self.gradient, allow_unused=True)

    def _run_both(self) -> None:
        self._run_forward()
        self._run_backward()


class Replay(torch.autograd.Function):
    """Replays a recording's forward, and its backward when the gradient comes."""

    @staticmethod
    def forward(ctx: Any, recording: Recording, hidden: Tensor, *_: Tensor) -> Tensor:
        """Returns the operator's output, valid until its layer runs again."""
        recording.memory.num_replays += 1
        ctx.recording, ctx.moment = recording, recording.moment
        with torch.no_grad():
            recording.hidden.copy_(hidden)
        recording.replay_forward()
        return recording.output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of the hidden state and the parameters.

        Raises:
            RuntimeError: another forward has overwritten what this one saw or saved.
        """
        recording: Recording = ctx.recording
        if ctx.moment != recording.moment:
            raise RuntimeError(
                "training.cuda_graphs: the backward must run before the next forward; this one's "
                "activations are overwritten"
            )
        recording.gradient.copy_(gradient)
        recording.replay_backward()
        of_hidden, *of_parameters = recording.gradients
        kept = [None if g is None else handed_out(g) for g in of_parameters]
        return None, None if of_hidden is None else of_hidden.detach(), *kept


def handed_out(gradient: Tensor) -> Tensor:
    """Returns a parameter's gradient that the next replay leaves alone, where that matters.

    ZeRO adds gradients up in fp32: those of 16 bits it copies in the backward that brought them,
    those of 32 bits it may keep as they are.
    """
    return gradient.clone() if gradient.dtype == torch.float32 else gradient.detach()


class RecordedForward:
    """An operator's forward in training mode, by way of recordings made on first use.

    Args:
        operator: one candidate of one layer.
        contexts: of the whole supernet.
        memory: of the layer.
    """

    def __init__(self, operator: nn.Module, contexts: StaticContexts, memory: LayerMemory) -> None:
        self.plain = operator.forward
        self.contexts, self.memory = contexts, memory
        self.parameters = tuple(p for p in operator.parameters() if p.requires_grad)
        self.modules = tuple(operator.modules())
        self.recordings: dict[Hashable, Recording] = {}

    def __call__(self, operator: nn.Module, hidden: Tensor, context: Any) -> Tensor:
        """Returns the next hidden state."""
        if self.runs_plainly(operator):
            return cast(Tensor, self.plain(hidden, context))
        static = self.contexts.of(context)
        if static is None:
            return cast(Tensor, self.plain(hidden, context))
        places = tuple(parameter.data_ptr() for parameter in self.parameters)
        key = (static.form, tuple(hidden.shape), hidden.dtype, places)
        if key not in self.recordings:
            self.recordings[key] = Recording(
                self.plain, self.parameters, hidden, static, self.memory
            )
        return cast(
            Tensor,
            Replay.apply(self.recordings[key], hidden, *self.parameters),  # type: ignore[no-untyped-call]
        )

    def runs_plainly(self, operator: nn.Module) -> bool:
        """Whether nothing is recorded: without gradients, in evaluation, or watched by hooks."""
        if not (operator.training and torch.is_grad_enabled()):
            return True
        return any(module._forward_hooks for module in self.modules[1:])


@contextmanager
def recorded_operators(
    supernet: Supernet, recorder_of_layer: Callable[[int], Recorder]
) -> Iterator[None]:
    """Runs the operators' forwards in training mode as recordings inside the block.

    Args:
        supernet: its weights must stay where they are, as they do up to ZeRO stage 2.
        recorder_of_layer: makes the recorder of one layer's candidates.
    """
    contexts = StaticContexts()
    operators = []
    for layer, names in enumerate(supernet.space.layers):
        memory = LayerMemory(recorder_of_layer(layer))
        for name in names:
            operator = supernet.operator(layer, name)
            operator.forward = MethodType(RecordedForward(operator, contexts, memory), operator)
            operators.append(operator)
    try:
        yield
    finally:
        for operator in operators:
            del operator.forward


def check_graphs(device: torch.device) -> None:
    """Refuses ``training.cuda_graphs`` where there are none.

    Raises:
        UserError: the device is no CUDA device.
    """
    if device.type != "cuda":
        raise UserError(
            f"training.cuda_graphs: CUDA graphs need a CUDA device, and this run is on "
            f"{device.type!r}: set it to false"
        )
