"""The way of a run into a checkpoint and back."""

from __future__ import annotations

import logging
import time
from typing import Any

from torch import Tensor

from magicbert.space import Architecture
from magicbert.supernet.anchor import AnchorPolicy
from magicbert.training.checkpoints import Checkpoint, CheckpointStore, RunIdentity
from magicbert.training.engine import TrainingEngine
from magicbert.training.path_sparse.state import read_scale, read_state, write_scale, write_state
from magicbert.training.position import TrainState

LOGGER = logging.getLogger("magicbert")
BUFFER = "buffer:"


class Resumer:
    """Saves and restores everything that a run needs to go on bit by bit.

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
            "step": state.step,
            "path": None if state.path is None else str(state.path),
            "num_tokens": state.num_tokens,
            "seconds": state.total_seconds,
            "anchor": None if self.anchors is None else self.anchors.state(),
            "loss_scale": read_scale(self.engine.optimizer),
            "identity": dict(self.identity.values),
        }
        self.store.save(state.step, record, self._shard())

    def load(self) -> TrainState:
        """Restores the newest checkpoint that verifies; without one, returns the start.

        Raises:
            UserError: the checkpoint is of another space or another config.
        """
        started = time.monotonic()
        checkpoint = self.store.newest()
        if checkpoint is None:
            return TrainState(started=started)
        record = checkpoint.state
        self.identity.check(record["identity"], str(checkpoint.folder))
        self._restore(checkpoint)
        if self.store.ranks.is_first:
            LOGGER.info("resuming from %s", checkpoint.folder)
        path = record["path"]
        return TrainState(
            step=record["step"],
            path=None if path is None else Architecture.parse(path),
            num_tokens=record["num_tokens"],
            seconds=record["seconds"],
            started=started,
        )

    def _shard(self) -> dict[str, Tensor] | None:
        """Returns this rank's tensors; the first rank's hold the model's buffers too."""
        is_first = self.store.ranks.is_first
        if self.engine.is_replicated and not is_first:
            return None
        tensors = read_state(self.engine.optimizer)
        if is_first:
            tensors |= {BUFFER + name: value for name, value in self._buffers().items()}
        return tensors

    def _buffers(self) -> dict[str, Tensor]:
        """Returns the buffers that belong to the model's state."""
        module = self.engine.module
        saved = module.state_dict().keys()
        return {name: value for name, value in module.named_buffers() if name in saved}

    def _restore(self, checkpoint: Checkpoint) -> None:
        first = checkpoint.tensors(0)
        own_shard = 0 if self.engine.is_replicated else self.store.ranks.rank
        own: dict[str, Any] = checkpoint.tensors(own_shard) if own_shard else first
        write_state(self.engine.optimizer, own)
        write_scale(self.engine.optimizer, checkpoint.state["loss_scale"])
        for name, buffer in self._buffers().items():
            buffer.copy_(first[BUFFER + name])
        if self.anchors is not None:
            self.anchors.restore(checkpoint.state["anchor"])
