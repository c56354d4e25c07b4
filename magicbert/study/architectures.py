"""The architectures of a study's table, and the parts of it that more is spent on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from magicbert.config.sections import RankingSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator

MOST_ARCHITECTURES = 100_000


def table_architectures(setting: RankingSection, space: SearchSpace) -> tuple[Architecture, ...]:
    """Returns the architectures that are trained alone, in an order that is fixed once.

    Raises:
        UserError: the space does not have such a table.
    """
    if setting.table == "periodic":
        return periodic_architectures(space, setting.period)
    if setting.table == "stretched":
        return stretched_architectures(space, setting.period)
    if setting.num_architectures > space.count():
        raise UserError(
            f"ranking.num_architectures: {setting.num_architectures}, but the space has "
            f"{space.count():,} architectures"
        )
    drawn: dict[Architecture, None] = {}
    number = 0
    while len(drawn) < setting.num_architectures:
        drawn[space.sample(keyed_generator(setting.table_seed, "table", number))] = None
        number += 1
    return tuple(drawn)


def periodic_architectures(space: SearchSpace, period: int) -> tuple[Architecture, ...]:
    """Returns every pattern of ``period`` layers, repeated to the depth of the space.

    It is a complete set: no error comes from drawing architectures, and each has the full depth.

    Raises:
        UserError: the depth is no multiple of the period, or there are too many patterns.
    """
    patterns, repeats = patterns_of(space, period)
    return checked(space, [Architecture(path.operators * repeats) for path in patterns])


def stretched_architectures(space: SearchSpace, period: int) -> tuple[Architecture, ...]:
    """Returns every pattern of ``period`` layers, each of its operators in a run of layers.

    It is a complete set like the periodic one, with the same operators in equal numbers; what an
    operator is worth near the input and near the output shows here, and hardly there.

    Raises:
        UserError: the depth is no multiple of the period, or there are too many patterns.
    """
    patterns, repeats = patterns_of(space, period)
    return checked(space, [
        Architecture(tuple(name for name in path.operators for _ in range(repeats)))
        for path in patterns
    ])  # fmt: skip


def patterns_of(space: SearchSpace, period: int) -> tuple[list[Architecture], int]:
    """Returns every pattern of so many layers, and how often the depth holds one.

    Raises:
        UserError: the depth is no multiple of the period, or there are too many patterns.
    """
    repeats, rest = divmod(space.num_layers, period)
    if rest:
        raise UserError(
            f"ranking.period: {space.num_layers} layers are no multiple of {period}; take a "
            "period that divides them"
        )
    pattern = SearchSpace(space.layers[:period])
    if pattern.count() > MOST_ARCHITECTURES:
        raise UserError(
            f"ranking.period: {period} layers have {pattern.count():,} patterns, and a table "
            f"holds {MOST_ARCHITECTURES:,} at most; take a shorter one"
        )
    return list(pattern.enumerate()), repeats


def checked(space: SearchSpace, paths: Sequence[Architecture]) -> tuple[Architecture, ...]:
    """Returns architectures that the space holds.

    Raises:
        UserError: it does not hold one of them.
    """
    for path in paths:
        space.check(path)
    return tuple(paths)


def chosen(architectures: tuple[Architecture, ...], number: int, seed: int) -> list[Architecture]:
    """Returns some of the table, drawn once: a larger choice holds every smaller one.

    Args:
        architectures: the table.
        number: how many; the whole table if it has fewer.
        seed: of the order in which they are taken.
    """
    order = keyed_generator(seed, "chosen", 0).permutation(len(architectures))
    return [architectures[int(index)] for index in itertools.islice(order, number)]
