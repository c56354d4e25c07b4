"""Memory of one rank by what it is for, at every ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from magicbert.planning.backward import FP32_BYTES, STAGES, PathValues, Sharding

NUM_MOMENTS = 2
# DeepSpeed pads each parameter group so that every rank's part begins at a multiple of this.
ALIGNMENT = 2


def padded(sharding: Sharding, sizes: Iterable[int]) -> int:
    """Returns the values of parameter groups with their padding."""
    if sharding.stage == 0:
        return sum(sizes)
    unit = ALIGNMENT * sharding.num_ranks
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
        teacher: weights of a frozen teacher, whole on every rank.
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
    teacher: int
    masters: int
    moments: int
    gradients: int
    activations: int
    temporaries: int
    buffers: int
    host: int
    peak: int


def rank_memory(
    sharding: Sharding,
    groups: Iterable[int],
    path: Iterable[int],
    forward: ForwardMemory,
    anchor: Iterable[int] = (),
    teacher: int = 0,
) -> RankMemory:
    """Returns what one rank holds.

    Args:
        sharding: how state is spread.
        groups: values of every parameter group of the supernet.
        path: values of the groups that the largest path trains, shared ones included.
        forward: of one micro-batch of the path that keeps most.
        anchor: values of the groups that an anchor needs beside them.
        teacher: bytes of a teacher's weights.
    """
    held = padded(sharding, groups) // sharding.num_parts
    trained = padded(sharding, path)
    weights = held * sharding.num_parts // sharding.num_weight_parts * sharding.value_bytes
    masters = 0 if sharding.is_weight_the_master else held * FP32_BYTES
    moments = NUM_MOMENTS * held * FP32_BYTES
    values = PathValues(trained, trained + padded(sharding, anchor))
    backward = STAGES[sharding.stage](sharding, values)
    on_device = 0 if sharding.offloads else masters + moments
    # Activations go as gradients come: the most is held where the backward begins or ends.
    begin = forward.kept + forward.temporary + backward.begin
    return RankMemory(
        weights=weights,
        teacher=teacher,
        masters=0 if sharding.offloads else masters,
        moments=0 if sharding.offloads else moments,
        gradients=backward.gradients,
        activations=forward.kept,
        temporaries=forward.temporary,
        buffers=backward.buffers,
        host=masters + moments + staging(sharding, trained) if sharding.offloads else 0,
        peak=weights
        + teacher
        + on_device
        + max(begin, backward.end, weight_message(sharding, trained)),
    )


def staging(sharding: Sharding, active: int) -> int:
    """Returns the bytes of host memory through which a path's gradients and weights travel."""
    part = active // sharding.num_parts
    weights = part * sharding.value_bytes if sharding.value_bytes < FP32_BYTES else 0
    return part * FP32_BYTES + weights


def weight_message(sharding: Sharding, active: int) -> int:
    """Returns what is held while the other ranks' weights come, after a step of stage 1 or 2."""
    if sharding.stage in (0, 3) or sharding.num_ranks == 1:
        return 0
    own = active // sharding.num_ranks
    return (active + own) * sharding.value_bytes + own * FP32_BYTES
