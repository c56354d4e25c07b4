"""Dropout as a function of (seed, step, micro-batch): there is no random state to resume."""

from __future__ import annotations

import hashlib

import torch


def seed_dropout(seed: int, step: int, position: int) -> None:
    """Sets torch's generators ahead of a forward.

    Args:
        seed: of the training.
        step: optimizer step, from 0.
        position: number of the micro-batch among those of all ranks in this step.
    """
    digest = hashlib.sha256(f"{seed}:{step}:{position}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8]))
