"""Optimizer state cut anew: from the shards of some ranks to the flat masters of other ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from magicbert.training.checkpoints.fields import FormatError
from magicbert.training.checkpoints.layout import GroupLayout, Layout
from magicbert.training.checkpoints.shard import Shard
from magicbert.training.checkpoints.store import Checkpoint


@dataclass(frozen=True, order=True)
class Run:
    """Values ``start .. stop`` of a parameter, and where they are.

    Attributes:
        start: first value, counted in the flattened parameter.
        stop: one past the last.
        shard: number of the shard.
        offset: of the first value in the shard's flat tensor.
    """

    start: int
    stop: int
    shard: int
    offset: int


class RankState(Mapping[str, Tensor]):
    """A rank's state by ``group:part``, whoever saved it; read when it is asked for.

    A group without moments has never been sampled and has no entry for them. No more is held in
    memory than the tensor asked for, and no more is read of it than the rank needs.

    Args:
        shards: all of a checkpoint, or the rank's own if that is laid out as wanted.
        wanted: the rank's layout.
        is_recut: whether the shards are laid out otherwise.

    Raises:
        FormatError: the shards contradict each other; or, when a tensor is asked for, lack values.
    """

    def __init__(self, shards: Sequence[Shard], wanted: Layout, *, is_recut: bool) -> None:
        self.shards, self.wanted, self.is_recut = shards, wanted, is_recut
        self._keys = {
            f"{name}:{part}": name for name in wanted.groups for part in parts_of(shards, name)
        }
        self._runs = {name: runs_of(shards, name) for name in wanted.groups if is_recut}

    @classmethod
    def of(cls, checkpoint: Checkpoint, rank: int, wanted: Layout) -> RankState:
        """Opens the rank's own shard, or every shard where that is laid out otherwise."""
        num_shards = checkpoint.manifest.num_shards
        if rank < num_shards:
            own = checkpoint.shard(rank)
            if own.layout == wanted:
                return cls([own], wanted, is_recut=False)
        shards = [checkpoint.shard(number) for number in range(num_shards)]
        return cls(shards, wanted, is_recut=True)

    def __getitem__(self, key: str) -> Tensor:
        name = self._keys[key]
        if not self.is_recut:
            return self.shards[0].tensor(key)
        return recut(self.shards, key, self._runs[name], self.wanted.groups[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def parts_of(shards: Sequence[Shard], group: str) -> set[str]:
    """Returns the parts of a group: the same in every shard."""
    parts = [shard.parts.get(group) for shard in shards]
    first = parts[0]
    if first is None or any(other != first for other in parts):
        raise FormatError(f"the shards of {shards[0].path.parent} do not agree about {group}")
    return first


def runs_of(shards: Sequence[Shard], group: str) -> dict[str, list[Run]]:
    """Returns where the values of each parameter of a group are, in their order."""
    runs: dict[str, list[Run]] = {}
    for number, shard in enumerate(shards):
        layout = shard.layout.groups[group]
        for piece in layout.pieces:
            name = layout.parameters[piece.parameter]
            run = Run(piece.start, piece.start + piece.length, number, piece.offset)
            runs.setdefault(name, []).append(run)
    return {name: sorted(found) for name, found in runs.items()}


def recut(
    shards: Sequence[Shard], key: str, runs: dict[str, list[Run]], group: GroupLayout
) -> Tensor:
    """Returns one flat tensor, or one number, of a group.

    Args:
        shards: all of a checkpoint.
        key: ``group:part``.
        runs: where the values of the group's parameters are.
        group: what is wanted.
    """
    if shards[0].is_scalar(key):
        first, *others = (shard.tensor(key) for shard in shards)
        if any(not torch.equal(other, first) for other in others):
            raise FormatError(f"the shards of {shards[0].path.parent} do not agree about {key}")
        return first
    flat = torch.zeros(group.length)
    for piece in group.pieces:
        name, target = group.parameters[piece.parameter], piece.offset - piece.start
        for run in overlaps(runs.get(name, []), piece.start, piece.start + piece.length, name):
            stop = run.offset + run.stop - run.start
            values = shards[run.shard].values(key, run.offset, stop)
            flat[run.start + target : run.stop + target] = values
    return flat


def overlaps(runs: Sequence[Run], start: int, stop: int, name: str) -> Iterator[Run]:
    """Yields the parts of runs that make up values ``start .. stop``, each value once."""
    for run in runs:
        if run.stop <= start or start >= stop:
            continue
        if run.start > start:
            break
        end = min(run.stop, stop)
        yield Run(start, end, run.shard, run.offset + start - run.start)
        start = end
    if start < stop:
        raise FormatError(f"no shard holds the values {start} to {stop} of {name}")
