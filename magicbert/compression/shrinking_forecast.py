"""How far shrinking goes, known before it starts: which paths go is learned, how many is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from magicbert.config.sections import BlockTrainingSection


@dataclass(frozen=True)
class Forecast:
    """A block's training in numbers.

    Attributes:
        steps: optimizer steps until every bin is shrunk, or all there are.
        scored: paths that are scored on dev batches in all rounds and for the table, each time
            counted anew.
        rows: of the block's table.
    """

    steps: int
    scored: int
    rows: int


def forecast(sizes: Mapping[int, int], settings: BlockTrainingSection) -> Forecast:
    """Returns what `BlockTraining` will do.

    Args:
        sizes: number of paths in each bin at the start.
        settings: steps, rounds and bins.
    """
    left, scored, made, number = dict(sizes), 0, 0, 0
    while made < settings.num_steps and max(left.values()) > settings.keep_per_bin:
        made = min(made + settings.steps_per_round, settings.num_steps)
        if made % settings.steps_per_round:
            break
        number += 1
        if number > settings.warmup_rounds:
            scored += num_scored(left, settings)
            left = {one: halved(size, settings) for one, size in left.items()}
    rows = sum(min(size, settings.keep_per_bin) for size in left.values())
    return Forecast(made, scored + num_scored(left, settings), rows)


def num_scored(sizes: Mapping[int, int], settings: BlockTrainingSection) -> int:
    """Returns how many paths a round scores."""
    return sum(min(size, settings.samples_per_bin) for size in sizes.values())


def halved(size: int, settings: BlockTrainingSection) -> int:
    """Returns the paths that a round leaves in a bin."""
    worse = min(size, settings.samples_per_bin) // 2
    return size - min(worse, max(size - settings.keep_per_bin, 0))
