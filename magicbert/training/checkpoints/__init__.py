"""Checkpoints that are whole or absent: safetensors and JSON, verified before they are trusted."""

from magicbert.training.checkpoints.identity import RunIdentity
from magicbert.training.checkpoints.layout import Layout
from magicbert.training.checkpoints.manifest import Origin
from magicbert.training.checkpoints.shard import ShardData
from magicbert.training.checkpoints.store import Checkpoint, CheckpointStore

__all__ = ["Checkpoint", "CheckpointStore", "Layout", "Origin", "RunIdentity", "ShardData"]
