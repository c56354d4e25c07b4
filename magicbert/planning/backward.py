"""What a rank holds through the last backward of a step, at every ZeRO stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FP32_BYTES = 4


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
        most_live: values of weights that stay gathered through a step at most, at stage 3.
        is_gloo: ranks speak over gloo, which scatters sums from a copy of the message.
    """

    stage: Literal[0, 1, 2, 3]
    num_ranks: int
    value_bytes: int
    bucket_values: int
    accumulates: bool
    offloads: bool
    most_live: int = 0
    is_gloo: bool = False

    @property
    def num_parts(self) -> int:
        """Parts that optimizer state is cut into."""
        return self.num_ranks if self.stage else 1

    @property
    def num_weight_parts(self) -> int:
        """Parts that weights are cut into."""
        return self.num_ranks if self.stage == 3 else 1

    @property
    def is_weight_the_master(self) -> bool:
        """Whether fp32 weights are the masters themselves, in one storage."""
        return self.value_bytes == FP32_BYTES and not self.offloads


@dataclass(frozen=True)
class PathValues:
    """Values of the parameter groups that a step needs, padding included.

    Attributes:
        trained: by the path, shared ones among them.
        gathered: by the path and, under MAGIC-A, by the anchor beside it.
    """

    trained: int
    gathered: int


@dataclass(frozen=True)
class Backward:
    """Bytes beside the state between two steps, activations aside.

    Attributes:
        begin: held where the last backward of a step begins.
        end: held where it ends.
        gradients: the share of gradients in ``end``.
        buffers: for messages between ranks, gathered weights among them.
    """

    begin: int
    end: int
    gradients: int
    buffers: int


def replicated(sharding: Sharding, path: PathValues) -> Backward:
    """Stage 0: fp32 sums; beside them the last micro-batch's gradients, then a message."""
    sums = path.trained * FP32_BYTES
    fresh = path.trained * sharding.value_bytes
    begin = sums if sharding.accumulates else 0
    return Backward(begin, sums + max(fresh, sums), sums + fresh, sums)


def shared_state(sharding: Sharding, path: PathValues) -> Backward:
    """Stage 1: fp32 sums, this rank's part of the reduced ones, and a bucket in fp32."""
    sums = path.trained * FP32_BYTES
    gradients = sums + sums // sharding.num_ranks
    bucket = sharding.bucket_values * FP32_BYTES
    begin = bucket + (sums if sharding.accumulates else 0)
    return Backward(begin, gradients + bucket, gradients, bucket)


def shared_gradients(sharding: Sharding, path: PathValues) -> Backward:
    """Stage 2: this rank's part, and what waits until its bucket is full.

    Low precision is summed over ranks in fp32, from a copy.
    """
    part = path.trained // sharding.num_ranks * FP32_BYTES
    waiting = min(path.trained, sharding.bucket_values)
    gradients = part + waiting * sharding.value_bytes
    bucket = sharding.bucket_values * sharding.value_bytes
    copy = waiting * FP32_BYTES if sharding.value_bytes < FP32_BYTES else 0
    begin = bucket + (part if sharding.accumulates else 0)
    return Backward(begin, gradients + bucket + copy, gradients, bucket + copy)


def shared_weights(sharding: Sharding, path: PathValues) -> Backward:
    """Stage 3: gathered weights, this rank's part of gradients, and a message of the others."""
    is_alone = sharding.num_ranks == 1
    live = 0 if is_alone else min(path.gathered, max(sharding.most_live, sharding.bucket_values))
    part = path.trained // sharding.num_ranks * FP32_BYTES
    waiting = min(path.trained, sharding.bucket_values)
    has_former = sharding.accumulates or waiting < path.trained
    fresh, message = waiting * sharding.value_bytes, waiting * FP32_BYTES
    received = 0 if is_alone else message // sharding.num_ranks
    copied = message if sharding.is_gloo and not is_alone else 0
    former = part if has_former else 0
    weights = live * sharding.value_bytes
    return Backward(
        begin=weights + (part if sharding.accumulates else 0),
        end=weights + former + message + max(fresh, received + copied),
        gradients=part + fresh,
        buffers=weights + message + copied,
    )


STAGES: dict[int, Callable[[Sharding, PathValues], Backward]] = {
    0: replicated,
    1: shared_state,
    2: shared_gradients,
    3: shared_weights,
}
