"""Pareto fronts: what no other candidate beats in one figure without losing in another.

Non-dominated sorting and crowding are those of NSGA-II (Deb et al., 2002); all figures are
minimised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from magicbert.search.candidate import Candidate

Points = NDArray[np.float64]


def first_front(points: Points) -> list[int]:
    """Returns the places of the points that no other one dominates, in ascending order.

    A point dominates another if it is no worse in any figure and better in one; equal points do
    not dominate each other.

    Args:
        points: ``[points, figures]``.
    """
    front: list[int] = []
    # In lexicographic order nothing is dominated by what comes after it.
    for place in np.lexsort(points.T[::-1]):
        standing, point = points[front], points[place]
        no_worse = (standing <= point).all(axis=1)
        better = (standing < point).any(axis=1)
        if not (no_worse & better).any():
            front.append(int(place))
    return sorted(front)


def fronts(points: Points) -> list[list[int]]:
    """Returns the places of the first front, of the first one of what remains, and so on."""
    remaining = np.arange(len(points))
    found: list[list[int]] = []
    while len(remaining):
        inside = first_front(points[remaining])
        found.append([int(place) for place in remaining[inside]])
        remaining = np.delete(remaining, inside)
    return found


def crowding(points: Points) -> Points:
    """Returns how much room each point of one front has: the ends of any figure have the most."""
    room = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        spread = values[order[-1]] - values[order[0]]
        room[order[[0, -1]]] = np.inf
        if spread > 0 and len(order) > 2:
            room[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / spread
    return room


def figures(candidates: Sequence[Candidate], objectives: Sequence[str]) -> Points:
    """Returns ``[candidates, objectives]`` of what is minimised."""
    rows = [[candidate.figure(name) for name in objectives] for candidate in candidates]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(objectives))


def pareto_front(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Candidate]:
    """Returns the candidates that none dominates, the least loss first."""
    chosen = [candidates[place] for place in first_front(figures(candidates, objectives))]
    return sorted(chosen, key=lambda candidate: candidate.rank_key)


def select(
    candidates: Sequence[Candidate], objectives: Sequence[str], number: int
) -> list[Candidate]:
    """Returns the fittest: by front, and within the last front that fits by the room they have.

    With one objective this is the order of that figure.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.rank_key)
    if len(objectives) == 1:
        return sorted(ordered, key=lambda candidate: candidate.figure(objectives[0]))[:number]
    points = figures(ordered, objectives)
    chosen: list[Candidate] = []
    for front in fronts(points):
        room = crowding(points[front])
        by_room = sorted(range(len(front)), key=lambda place: (-room[place], place))
        chosen += [ordered[front[place]] for place in by_room]
        if len(chosen) >= number:
            break
    return chosen[:number]
