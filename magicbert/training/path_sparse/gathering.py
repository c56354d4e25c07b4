"""Which weights are whole at which moment of a step at ZeRO stage 3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from magicbert.space import Architecture
from magicbert.training.path_sparse.gathering_order import GatherOrder, pack
from magicbert.training.path_sparse.gathering_unit import GatherMessage, WeightUnit
from magicbert.training.path_sparse.groups import SHARED, operator_key

NOT_ANNOUNCED = (
    "ZeRO stage 3: the weights of {} are partitioned. Name the path with begin_step before "
    "training it, or use gathered(path) to read it."
)


class PathGatherer:
    """Gathers the weights of the path, and of the anchor, ahead of their use.

    Stock DeepSpeed records which modules ran and expects the same next time; another path makes
    it forget the record and ask all ranks again. Here the path is known before the step, so
    nothing is recorded: while one message's operators compute, the next message is on its way.

    Up to ``most_live`` values stay whole until the step ends, so that accumulation and backward
    gather nothing again. Beyond that an operator is released after its forward, gathered again
    for its backward, and released after that. What all paths share stays whole for the step.

    Every rank must call the same methods in the same order: each message is a collective.

    Args:
        units: the weights by owner; an operator without parameters has none.
        process_group: the ranks that hold the parts.
        bucket_size: values of one message.
        most_live: values that may stay whole through a step.
    """

    def __init__(
        self,
        units: Mapping[str, WeightUnit],
        process_group: object,
        bucket_size: int,
        most_live: int,
    ) -> None:
        self.units = units
        self.process_group = process_group
        self.bucket_size, self.most_live = bucket_size, most_live
        self.path: list[WeightUnit] = []
        self.order = GatherOrder()
        self._shared = [SHARED] if SHARED in units else []
        self._sizes = {owner: unit.numel for owner, unit in units.items()}
        self._planned: list[WeightUnit] = []
        self._is_resident = True
        self._kept: set[WeightUnit] = set()
        self._readable: set[WeightUnit] = set()
        self._in_flight: dict[WeightUnit, GatherMessage] = {}

    # --- a step ------------------------------------------------------------------------------

    def begin_step(self, architecture: Architecture, anchor: Architecture | None) -> None:
        """Plans a step's messages and sends the first one."""
        self.release_all()
        owners = self._owners(architecture)
        aligned = [] if anchor is None else [*self._shared, *self._owners(anchor)]
        self.path = [self.units[owner] for owner in owners]
        planned = {*self._shared, *owners, *aligned}
        self._planned = [self.units[owner] for owner in planned]
        self._is_resident = sum(unit.numel for unit in self._planned) <= self.most_live
        # Two messages are whole at a time where not everything is.
        most = self.bucket_size if self._is_resident else self.most_live // 2
        limit = min(self.bucket_size, most)
        self.order = GatherOrder.of([*self._shared, *owners], aligned, self._sizes, limit)
        # The backward begins with the last message's operators: they may as well stay.
        kept = planned if self._is_resident else {*self._shared, *self.order.chunks[-1]}
        self._kept = {self.units[owner] for owner in kept}
        self._send(0)

    def _owners(self, architecture: Architecture) -> list[str]:
        keys = (operator_key(layer, name) for layer, name in enumerate(architecture))
        return [key for key in keys if key in self.units]

    def enter_shared(self) -> None:
        """Waits for the weights that all paths share: a forward is about to run."""
        for owner in self._shared:
            if not (owner in self.order.path or self.units[owner].is_live):
                raise RuntimeError(NOT_ANNOUNCED.format(owner))
            self._finish(self.units[owner])

    def enter(self, owner: str) -> None:
        """Makes an operator's weights whole: its forward is about to run.

        Without gradients an operator that was not announced is gathered there and then.
        """
        is_trained = torch.is_grad_enabled()
        number = (self.order.path if is_trained else self.order.anchor).get(owner)
        if number is not None:
            self._finish(self.units[owner], number)
            self._send(number + 1)
        elif is_trained and self.units[owner] not in self._readable:
            raise RuntimeError(NOT_ANNOUNCED.format(owner))
        else:
            self._finish(self.units[owner])

    def leave(self, owner: str) -> None:
        """Releases an operator after its forward, if memory is short."""
        unit = self.units[owner]
        if unit not in self._kept:
            unit.release()

    def before_backward(self, position: int) -> None:
        """Makes a path's operator whole again; the ones behind it have done their backward.

        Args:
            position: of the operator in ``path``.
        """
        if self._is_resident:
            return
        for unit in self.path[position + 1 :]:
            unit.release()
        number = self.order.path[self.path[position].owner]
        self._finish(self.path[position], number)
        if number > min(self.order.path.values()):
            self._send(number - 1)

    def end_backward(self) -> None:
        """Releases the path's operators after a micro-batch, if memory is short."""
        if not self._is_resident:
            self._land()
            for unit in self.path:
                unit.release()

    def release_all(self) -> None:
        """Ends a step: only this rank's parts remain."""
        self._land()
        for unit in self._planned:
            unit.release()
        self.order, self.path, self._planned, self._kept = GatherOrder(), [], [], set()

    # --- reading -----------------------------------------------------------------------------

    @contextmanager
    def gathered(self, architecture: Architecture) -> Iterator[None]:
        """Keeps a path whole for the block, between steps; ranks may use it unequally often."""
        owners = [*self._shared, *self._owners(architecture)]
        missing = [owner for owner in owners if not self.units[owner].is_live]
        for chunk in pack(missing, self._sizes, self.bucket_size):
            self._send_owners(chunk)
        self._land()
        before = self._readable, self._kept
        self._readable = self._readable | {self.units[owner] for owner in owners}
        self._kept = self._kept | self._readable
        try:
            yield
        finally:
            self._readable, self._kept = before
            for owner in missing:
                self.units[owner].release()

    # --- messages ----------------------------------------------------------------------------

    def _send(self, number: int) -> None:
        if number < len(self.order.chunks):
            self._send_owners(self.order.chunks[number])

    def _send_owners(self, owners: Iterable[str]) -> None:
        """Sends the units that are neither whole nor on their way, in one message."""
        named = (self.units[owner] for owner in owners)
        units = [unit for unit in named if not (unit.is_live or unit in self._in_flight)]
        if units:
            message = GatherMessage(units, self.process_group)
            self._in_flight.update(dict.fromkeys(units, message))

    def _finish(self, unit: WeightUnit, number: int | None = None) -> None:
        """Waits until a unit is whole, sending its message first if that was not done."""
        if unit.is_live:
            return
        if unit not in self._in_flight:
            self._send_owners([unit.owner] if number is None else self.order.chunks[number])
        self._complete(self._in_flight[unit])

    def _complete(self, message: GatherMessage) -> None:
        message.finish()
        for unit in message.units:
            del self._in_flight[unit]

    def _land(self) -> None:
        """Waits for every message on its way."""
        for message in dict.fromkeys(self._in_flight.values()):
            self._complete(message)
