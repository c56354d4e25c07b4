"""Tokens, FLOPs, checkpoints and hours of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magicbert.space import SearchSpace
from magicbert.space.cost import CostModel

# A backward computes two products for each one of the forward.
FORWARDS_OF_A_STEP = 3
# Masters and two moments, in fp32.
BYTES_PER_SAVED_VALUE = 12
# The deepspeed launcher kills its ranks so long after it told them to stop.
SECONDS_TO_SAVE = 30.0


@dataclass(frozen=True)
class PathFlops:
    """FLOPs of one forward of one row.

    Attributes:
        mean: over all paths of the space, each as likely as another.
        largest: of the path that takes most.
    """

    mean: float
    largest: float

    @classmethod
    def of(cls, space: SearchSpace, cost: CostModel, head: float) -> PathFlops:
        """Adds up the layers.

        Args:
            space: the paths.
            cost: of the operators.
            head: FLOPs of what stands on top of the encoder, for one row.
        """
        layers = [[cost.of_operator(name).flops for name in names] for names in space.layers]
        fixed = cost.fixed.flops + head
        mean = fixed + sum(sum(flops) / len(flops) for flops in layers)
        return cls(mean, fixed + sum(max(flops) for flops in layers))


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one optimizer step over all ranks.

    Attributes:
        mean: of a step on a path drawn from the space.
        largest: of a step on the largest path.
        anchor: the share of the anchor's forward in ``mean``; 0 without alignment.
        teacher: the share of a teacher's forward; 0 without one.
    """

    mean: float
    largest: float
    anchor: float
    teacher: float = 0.0

    @classmethod
    def of(
        cls, path: PathFlops, rows: int, *, num_references: int, teacher: float = 0.0
    ) -> StepFlops:
        """Returns the FLOPs of a step.

        Args:
            path: of one row's forward.
            rows: of one step, over all ranks.
            num_references: paths that a step is aligned to: the anchor (MAGIC-A), or children;
                the forward of each counts as the mean path's.
            teacher: of one row's forward through a teacher, which has no backward.
        """
        forwards = FORWARDS_OF_A_STEP * rows
        anchor, taught = path.mean * rows * num_references, teacher * rows
        beside = anchor + taught
        return cls(path.mean * forwards + beside, path.largest * forwards + beside, anchor, taught)


@dataclass(frozen=True)
class SaveTime:
    """How long a checkpoint takes.

    Attributes:
        num_bytes: of the checkpoint.
        seconds: to write it, to bring it to the disk, and to verify it.
        is_in_time: whether it is done before a launcher that stops a run kills it; a step that is
            under way has to end first.
    """

    num_bytes: int
    seconds: float
    is_in_time: bool


def save_time(
    groups: Sequence[int], num_shards: int, disk: float, digest: float, step_seconds: float
) -> SaveTime:
    """Returns size and time of one checkpoint.

    Args:
        groups: values of every parameter group.
        num_shards: ranks that write at the same time, to one disk.
        disk: bytes a second that reach the disk.
        digest: bytes a second that one rank can hash; each rank hashes its file twice.
        step_seconds: of one step; 0 = not known.
    """
    num_bytes = sum(groups) * BYTES_PER_SAVED_VALUE
    seconds = num_bytes / disk + 2 * num_bytes / num_shards / digest
    return SaveTime(num_bytes, seconds, seconds + step_seconds <= SECONDS_TO_SAVE)


@dataclass(frozen=True)
class Hours:
    """Time of the whole run.

    Attributes:
        wall: hours of training.
        devices: hours of all ranks together.
        flops_per_second: of one rank, by the mean path; to compare with what a device can do.
    """

    wall: float
    devices: float
    flops_per_second: float

    @classmethod
    def of(cls, num_tokens: int, tokens_per_second: float, num_ranks: int, flops: float) -> Hours:
        """Returns the time at a rate; ``flops`` are those of the whole run."""
        seconds = num_tokens / tokens_per_second
        return cls(seconds / 3600, seconds * num_ranks / 3600, flops / seconds / num_ranks)
