"""What tensors really hold: storages walked, and the allocator's own reports."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def held_bytes() -> int:
    """Returns the bytes of all storages that tensors of this process hold."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(size for address, size in storages.items() if address)


def allocated_bytes(work: Callable[[], Any]) -> tuple[int, int, Any]:
    """Returns what some work left allocated, the most it had on the way, and its result."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = work()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return now, most, result


def token_batch(rows: int, length: int, vocab_size: int, num_predicted: int) -> Any:
    """Returns a full micro-batch of random tokens."""
    from magicbert.data.batch import TokenBatch

    ids = torch.randint(5, vocab_size, (rows, length))
    positions = torch.randperm(rows * length)[:num_predicted].sort().values
    return TokenBatch(ids, torch.ones_like(ids), positions, ids.flatten()[positions], ())
