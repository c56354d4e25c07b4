"""The way of a run into a checkpoint and back."""

from __future__ import annotations

import logging
import time
from typing import Any

from torch import Tensor

from magicbert.errors import UserError
from magicbert.supernet.anchor import AnchorPolicy
from magicbert.training.checkpoints import (
    Checkpoint,
    CheckpointStore,
    Layout,
    RunIdentity,
    ShardData,
)
from magicbert.training.checkpoints.fields import FormatError, shown, take
from magicbert.training.checkpoints.recutting import RankState
from magicbert.training.checkpoints.shard import BUFFER
from magicbert.training.engine import TrainingEngine
from magicbert.training.path_sparse.state import read_scale, read_state, write_scale, write_state
from magicbert.training.position import TrainState

LOGGER = logging.getLogger("magicbert")


class Resumer:
    """Saves and restores everything that a run needs to go on bit by bit.

    No random generator is among it: paths, batches, masks and dropout are functions of (seed,
    step), so a generator's state at the end of a step is never read again.

    Args:
        store: where checkpoints lie.
        identity: what must not change between two starts of a run.
        engine: model and optimizer.
        anchors: MAGIC-A's policy; ``None`` = no alignment.
    """

    def __init__(
        self,
        store: CheckpointStore,
        identity: RunIdentity,
        engine: TrainingEngine,
        anchors: AnchorPolicy | None,
    ) -> None:
        self.store, self.identity = store, identity
        self.engine, self.anchors = engine, anchors

    def save(self, state: TrainState) -> None:
        """Publishes a checkpoint; raises `AgreedError` if that fails."""
        record = {
            **state.to_json(),
            "anchor": None if self.anchors is None else self.anchors.state(),
            "loss_scale": read_scale(self.engine.optimizer),
            "identity": dict(self.identity.values),
        }
        self.store.save(state.step, record, self._shard())

    def load(self) -> TrainState:
        """Restores the newest checkpoint that verifies; returns the start if there is none.

        The number of ranks, the ZeRO stage and offload may be others than when it was saved.

        Raises:
            AgreedError: no checkpoint verifies, or it is of another space or another config.
        """
        started = time.monotonic()
        self.store.open()
        checkpoint = self.store.newest()
        state, problem = TrainState(started=started), None
        if checkpoint is not None:
            try:
                state = self._take_over(checkpoint, started)
            except UserError as error:
                problem = str(error)
        self.store.ranks.raise_together(problem)
        return state

    def _take_over(self, checkpoint: Checkpoint, started: float) -> TrainState:
        record = checkpoint.state
        self.identity.check(take(record, "identity", dict), str(checkpoint.folder))
        state = TrainState.parse(record, started)
        if state.step != checkpoint.step:
            raise FormatError(f"{checkpoint.folder}: its state is of step {state.step}")
        scale = take(record, "loss_scale", dict)
        check_numbers(scale)
        self._restore_tensors(checkpoint)
        write_scale(self.engine.optimizer, scale)
        if self.anchors is not None:
            self.anchors.restore(take(record, "anchor", dict))
        return state

    def _shard(self) -> ShardData | None:
        """Returns this rank's tensors; the first rank's hold the model's buffers too."""
        is_first = self.store.ranks.is_first
        if self.engine.is_replicated and not is_first:
            return None
        tensors = read_state(self.engine.optimizer)
        if is_first:
            tensors |= {f"{BUFFER}:{name}": value for name, value in self._buffers().items()}
        return ShardData(tensors, Layout.of(self.engine.optimizer))

    def _buffers(self) -> dict[str, Tensor]:
        """Returns the buffers that belong to the model's state."""
        module = self.engine.module
        saved = module.state_dict().keys()
        return {name: value for name, value in module.named_buffers() if name in saved}

    def _restore_tensors(self, checkpoint: Checkpoint) -> None:
        optimizer, ranks = self.engine.optimizer, self.store.ranks
        first = checkpoint.shard(0)
        buffers = self._buffers()
        values = {name: first.tensor(f"{BUFFER}:{name}") for name in buffers}
        rank = 0 if self.engine.is_replicated else ranks.rank
        state = RankState.of(checkpoint, rank, Layout.of(optimizer))
        write_state(optimizer, state)
        for name, buffer in buffers.items():
            if values[name].shape != buffer.shape:
                raise FormatError(f"{first.path}: {name} has another shape")
            buffer.copy_(values[name])
        if ranks.is_first:
            how = ", its state cut anew for these ranks" if state.is_recut else ""
            LOGGER.info("resuming from %s%s", checkpoint.folder, how)


def check_numbers(values: dict[str, Any]) -> None:
    """Makes sure that the state of a loss scale holds numbers only.

    Raises:
        FormatError: names the value that is none.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise FormatError(f"loss_scale.{name}: expected a number, found {shown(value)}")
