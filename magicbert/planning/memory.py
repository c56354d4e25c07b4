"""Memory of one rank by what it is for, at every ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

FP32_BYTES = 4
NUM_MOMENTS = 2
# DeepSpeed pads each parameter group so that every rank's part begins at a multiple of this.
ALIGNMENT = 2


@dataclass(frozen=True)
class Sharding:
    """How state is spread over ranks.

    Attributes:
        stage: of ZeRO.
        num_ranks: that share it.
        value_bytes: of one weight in the training precision.
        bucket_values: gradients that are reduced in one message at most.
        accumulates: a step has several micro-batches.
        offloads: masters and moments stand in host memory.
    """

    stage: Literal[0, 1, 2, 3]
    num_ranks: int
    value_bytes: int
    bucket_values: int
    accumulates: bool
    offloads: bool

    @property
    def num_parts(self) -> int:
        """Parts that optimizer state is cut into."""
        return self.num_ranks if self.stage else 1

    @property
    def is_weight_the_master(self) -> bool:
        """Whether fp32 weights are the masters themselves, in one storage."""
        return self.value_bytes == FP32_BYTES and not self.offloads

    def padded(self, sizes: Iterable[int]) -> int:
        """Returns the values of parameter groups with their padding."""
        if self.stage == 0:
            return sum(sizes)
        unit = ALIGNMENT * self.num_ranks
        return sum(-(-size // unit) * unit for size in sizes)


@dataclass(frozen=True)
class ForwardMemory:
    """What one micro-batch needs beside weights, in bytes.

    Attributes:
        kept: by autograd until the backward.
        temporary: for a moment, where what is kept is largest.
    """

    kept: int
    temporary: int


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank, on its device unless said otherwise.

    Attributes:
        weights: in the training precision.
        masters: fp32 copies that the optimizer steps; 0 where the weights are they.
        moments: AdamW's or LAMB's, once every operator was sampled.
        gradients: of the largest path, at the end of its backward.
        activations: kept by the largest path between forward and backward.
        temporaries: beside them for a moment.
        buffers: for messages between ranks.
        host: masters and moments that were offloaded to host memory, and what travels there.
        peak: most that is held at one time on the device: parts that never meet are not added.
    """

    weights: int
    masters: int
    moments: int
    gradients: int
    activations: int
    temporaries: int
    buffers: int
    host: int
    peak: int


def rank_memory(
    sharding: Sharding, groups: Iterable[int], path: Iterable[int], forward: ForwardMemory
) -> RankMemory:
    """Returns what one rank holds.

    Args:
        sharding: how state is spread.
        groups: values of every parameter group of the supernet.
        path: values of the groups that the largest path trains, shared ones included.
        forward: of one micro-batch of the path that keeps most.
    """
    held = sharding.padded(groups) // sharding.num_parts
    active = sharding.padded(path)
    weights = held * sharding.num_parts * sharding.value_bytes
    masters = 0 if sharding.is_weight_the_master else held * FP32_BYTES
    moments = NUM_MOMENTS * held * FP32_BYTES
    steady = weights if sharding.offloads else weights + masters + moments
    begin, end, gradients, buffers = backward_memory(sharding, active, forward)
    return RankMemory(
        weights=weights,
        masters=0 if sharding.offloads else masters,
        moments=0 if sharding.offloads else moments,
        gradients=gradients,
        activations=forward.kept,
        temporaries=forward.temporary,
        buffers=buffers,
        host=masters + moments + staging(sharding, active) if sharding.offloads else 0,
        peak=steady + max(begin, end, weight_message(sharding, active)),
    )


def backward_memory(
    sharding: Sharding, active: int, forward: ForwardMemory
) -> tuple[int, int, int, int]:
    """Returns what is held where a step's last backward begins and ends, gradients, and buffers.

    Activations go as gradients come, so the most is held at one of the two ends.

    Args:
        sharding: how state is spread.
        active: padded values of the path's groups.
        forward: of one micro-batch.
    """
    part = active // sharding.num_parts * FP32_BYTES
    whole = active * FP32_BYTES
    if sharding.stage == 0:
        # The sums, and beside them first the last micro-batch's gradients, then a message.
        fresh, sums, before = active * sharding.value_bytes, whole, 0
        buffers = whole
        end = sums + max(fresh, buffers)
    elif sharding.stage == 1:
        # The sums, this rank's part of the reduced ones, and a bucket of the sums' type.
        fresh, sums = part, whole
        before = buffers = sharding.bucket_values * FP32_BYTES
        end = sums + fresh + buffers
    else:
        # Gradients wait until their bucket is full; low precision is summed over ranks in fp32.
        waiting = min(active, sharding.bucket_values)
        fresh, sums = waiting * sharding.value_bytes, part
        before = sharding.bucket_values * sharding.value_bytes
        buffers = before + (waiting * FP32_BYTES if sharding.value_bytes < FP32_BYTES else 0)
        end = sums + fresh + buffers
    begin = forward.kept + forward.temporary + before + (sums if sharding.accumulates else 0)
    return begin, end, sums + fresh, buffers


def staging(sharding: Sharding, active: int) -> int:
    """Returns the bytes of host memory through which a path's gradients and weights travel."""
    part = active // sharding.num_parts
    weights = part * sharding.value_bytes if sharding.value_bytes < FP32_BYTES else 0
    return part * FP32_BYTES + weights


def weight_message(sharding: Sharding, active: int) -> int:
    """Returns what is held while the other ranks' weights come, after the step."""
    if sharding.stage == 0 or sharding.num_ranks == 1:
        return 0
    own = active // sharding.num_ranks
    return (active + own) * sharding.value_bytes + own * FP32_BYTES
