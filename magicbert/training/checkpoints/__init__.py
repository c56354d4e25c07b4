"""Checkpoints that are whole or absent: safetensors and JSON, verified before they are trusted."""

from magicbert.training.checkpoints.identity import RunIdentity
from magicbert.training.checkpoints.store import Checkpoint, CheckpointStore

__all__ = ["Checkpoint", "CheckpointStore", "RunIdentity"]
