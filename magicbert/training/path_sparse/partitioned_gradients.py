"""Gradients at ZeRO stage 3: summed over ranks and cut into parts, for the path alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from deepspeed import comm as dist
from torch import Tensor

from magicbert.training.path_sparse.gathering_unit import WeightUnit


class GradientScatter:
    """Reduces the gradients of units in few messages and sums micro-batches in fp32.

    Stock DeepSpeed keeps a gradient buffer for the whole model, from which a step reads what an
    operator got whenever it was last sampled. Here there is no such buffer: the parts of one step
    are made by its first micro-batch and dropped at its end, so nothing old can come back.

    Every rank must add the same units in the same order, whether or not they have gradients.

    Args:
        process_group: the ranks that hold the parts.
        bucket_size: values of one message; a larger unit makes a message of its own.
        dtype: in which gradients travel and are summed.
    """

    def __init__(self, process_group: object, bucket_size: int, dtype: torch.dtype) -> None:
        self.process_group, self.bucket_size, self.dtype = process_group, bucket_size, dtype
        self.parts: dict[int, Tensor] = {}  # by number of the parameter group
        self._waiting: list[WeightUnit] = []
        self._on_their_way: tuple[Any, Tensor, list[WeightUnit]] | None = None

    def add(self, unit: WeightUnit) -> None:
        """Queues a unit whose backward is done."""
        if sum(other.numel for other in self._waiting) + unit.numel > self.bucket_size:
            self.send()
        self._waiting.append(unit)

    def send(self) -> None:
        """Sends the queue in one reduce-scatter; the one before has to be through."""
        if not self._waiting:
            return
        units, self._waiting = self._waiting, []
        message = self._message(units)
        self.receive()
        if len(message) == 1:
            self._on_their_way = (None, message[0], units)
            return
        own = message.new_empty(message.shape[1])
        handle = dist.reduce_scatter_tensor(
            own, message.view(-1), group=self.process_group, async_op=True
        )
        self._on_their_way = (handle, own, units)

    def receive(self) -> None:
        """Waits for the message on its way and adds it to this rank's parts."""
        if self._on_their_way is None:
            return
        (handle, own, units), self._on_their_way = self._on_their_way, None
        if handle is not None:
            handle.wait()
        sizes = {number: size for unit in units for number, size in unit.group_sizes.items()}
        for number, part in zip(sizes, torch.split(own, list(sizes.values())), strict=True):
            if number in self.parts:
                self.parts[number].add_(part)
            else:
                self.parts[number] = part

    def clear(self) -> None:
        """Drops everything: the step is over."""
        self.receive()
        self._waiting.clear()
        self.parts = {}

    def _message(self, units: Sequence[WeightUnit]) -> Tensor:
        """Takes the gradients off the parameters; row r is what rank r shall sum."""
        parameters = [p for unit in units for p in unit.parameters]
        sizes = [size for unit in units for size in unit.sizes]
        num_ranks = units[0].num_ranks
        message = units[0].partition.new_empty((num_ranks, sum(sizes)), dtype=self.dtype)
        columns = torch.split(message, sizes, dim=1)
        targets, rows = [], []
        for parameter, column in zip(parameters, columns, strict=True):
            if parameter.grad is None:
                column.zero_()
            else:
                targets.append(column)
                rows.append(as_rows(parameter.grad, column.shape))
                parameter.grad = None
        if rows:
            torch._foreach_copy_(targets, rows)
        return message


def as_rows(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Cuts a gradient into one row per rank, the last ones padded with zeros."""
    missing = shape.numel() - gradient.numel()
    flat = gradient.reshape(-1)
    return (F.pad(flat, (0, missing)) if missing else flat).view(shape)
