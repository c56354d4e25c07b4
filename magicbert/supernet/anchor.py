"""MAGIC-A's anchor: the path that the others are aligned to, and when it is replaced.

Policies decide from scores alone. They score with the weights of the moment, the old anchor
included: a stored score would favour whichever path was measured later. With several
ranks the score passed in must be the same everywhere (all-reduced), then all ranks decide alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from magicbert.config.sections import AlignmentSection
from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator

ScorePaths = Callable[[Collection[Architecture]], Mapping[Architecture, float]]


@dataclass(frozen=True, slots=True)
class AnchorEvent:
    """One comparison.

    Attributes:
        step: step (from 0) after which it took place.
        anchor: the anchor before the comparison.
        score: its dev accuracy with the weights of this step.
        challenger: the path that stood against it; the anchor from now on if ``replaced``.
        challenger_score: its dev accuracy with the same weights.
        replaced: whether the challenger took over.
        rank_percent: the old anchor's rank in the pool (0 = best), where there is a pool.
    """

    step: int
    anchor: Architecture
    score: float
    challenger: Architecture
    challenger_score: float
    replaced: bool
    rank_percent: float | None = None


class AnchorPolicy(ABC):
    """Holds the anchor; the first path of the run, or the delay's last, is the first one.

    Args:
        space: paths that can be anchors.
        every: M, steps between two comparisons; 1 is the paper's literal rule.
        delay_steps: first steps that are trained without alignment.

    Attributes:
        anchor: the current anchor; ``None`` until the first step, or the last one of the delay, is
            through.
    """

    def __init__(self, space: SearchSpace, every: int, delay_steps: int = 0) -> None:
        self.space = space
        self.every = every
        self.delay_steps = delay_steps
        self.anchor: Architecture | None = None

    def update(self, step: int, sampled: Architecture, score: ScorePaths) -> AnchorEvent | None:
        """Takes note of a finished step; compares after every M-th one.

        Args:
            step: the step that was just made, from 0.
            sampled: its path.
            score: dev accuracies of some paths with the weights after the step.

        Returns:
            What was compared, or ``None`` if this step called for no comparison.
        """
        if step + 1 < self.delay_steps:
            return None
        if self.anchor is None:
            self.anchor = sampled
            return None
        if (step + 1) % self.every:
            return None
        event = self.compare(step, self.anchor, sampled, score)
        if event is not None and event.replaced:
            self.anchor = event.challenger
        return event

    def children(self, step: int, sampled: Architecture) -> tuple[Architecture, ...]:
        """Returns the paths whose mean block outputs are aligned to, if it is not an anchor's."""
        return ()

    @abstractmethod
    def compare(
        self, step: int, anchor: Architecture, sampled: Architecture, score: ScorePaths
    ) -> AnchorEvent | None:
        """Decides whether another path takes over; changes nothing itself."""

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold, as JSON data."""
        return {"anchor": None if self.anchor is None else str(self.anchor)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned.

        Raises:
            UserError: the anchor is of another space.
        """
        text = state["anchor"]
        anchor = None if text is None else Architecture.parse(text)
        if anchor is not None:
            self.space.check(anchor)
        self.anchor = anchor


class BestAnchor(AnchorPolicy):
    """The best path so far: the sampled path takes over if it scores higher (MAGIC 4.2)."""

    def compare(
        self, step: int, anchor: Architecture, sampled: Architecture, score: ScorePaths
    ) -> AnchorEvent | None:
        """Compares the anchor with the sampled path, both with the weights as they are."""
        if sampled == anchor:
            return None
        scores = score((anchor, sampled))
        replaced = scores[sampled] > scores[anchor]
        return AnchorEvent(step, anchor, scores[anchor], sampled, scores[sampled], replaced)


class TopPercentAnchor(AnchorPolicy):
    """The path at the top p percent of a sampled pool (MAGIC 5.3, the anchor-quality analysis).

    The pool and the old anchor are ranked with the weights as they are. The anchor stays while its
    rank is within (p +- r) percent; otherwise the path at p percent takes over.

    Args:
        space: where the pool is sampled.
        every: steps between two comparisons.
        seed: with the step, it decides the pool.
        top_percent: p, 0 = the best of the pool.
        tolerance: r.
        pool_size: sampled paths; a space that is not larger is taken whole.
        delay_steps: first steps that are trained without alignment.
    """

    def __init__(
        self,
        space: SearchSpace,
        every: int,
        *,
        seed: int,
        top_percent: float,
        tolerance: float,
        pool_size: int,
        delay_steps: int = 0,
    ) -> None:
        super().__init__(space, every, delay_steps)
        self.seed = seed
        self.top_percent = top_percent
        self.tolerance = tolerance
        self.pool_size = pool_size

    def compare(
        self, step: int, anchor: Architecture, sampled: Architecture, score: ScorePaths
    ) -> AnchorEvent | None:
        """Ranks the pool and the anchor; the sampled path plays no part."""
        scores = score({anchor, *self.pool(step)})
        ranking = sorted(scores, key=lambda path: (-scores[path], path))
        last = len(ranking) - 1
        if last == 0:
            return None
        challenger = ranking[round(self.top_percent / 100 * last)]
        rank_percent = 100 * ranking.index(anchor) / last
        is_outside = abs(rank_percent - self.top_percent) > self.tolerance
        replaced = is_outside and challenger != anchor
        return AnchorEvent(
            step, anchor, scores[anchor], challenger, scores[challenger], replaced, rank_percent
        )

    def pool(self, step: int) -> list[Architecture]:
        """Returns the paths to be ranked after ``step``: a pure function of (seed, step)."""
        if self.space.count() <= self.pool_size:
            return list(self.space.enumerate())
        generator = keyed_generator(self.seed, "anchor-pool", step)
        return [self.space.sample(generator) for _ in range(self.pool_size)]


class MeanOfChildren(AnchorPolicy):
    """No anchor: the mean of C random children, the trained path among them (MAGIC 3, Figure 2b).

    Args:
        space: where the children are drawn.
        seed: with the step, it decides them.
        num_children: C, at least 2.
        delay_steps: first steps that are trained without alignment.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, num_children: int, delay_steps: int = 0
    ) -> None:
        super().__init__(space, 1, delay_steps)
        self.seed = seed
        self.num_children = num_children

    def children(self, step: int, sampled: Architecture) -> tuple[Architecture, ...]:
        """Returns the trained path and ``C - 1`` others: a pure function of (seed, step)."""
        if step < self.delay_steps:
            return ()
        generator = keyed_generator(self.seed, "children", step)
        others = (self.space.sample(generator) for _ in range(self.num_children - 1))
        return (sampled, *others)

    def update(self, step: int, sampled: Architecture, score: ScorePaths) -> AnchorEvent | None:
        """Compares nothing: there is no anchor to replace."""
        return None

    def compare(
        self, step: int, anchor: Architecture, sampled: Architecture, score: ScorePaths
    ) -> AnchorEvent | None:
        """Compares nothing."""
        return None


def num_references(section: AlignmentSection, space: SearchSpace) -> int:
    """Returns how many paths every step is aligned to: their forwards are what alignment costs."""
    if not section.enabled:
        return 0
    if section.anchor != "children":
        return 1
    return max(section.num_children or max(map(len, space.layers)), 2)


def build_anchor_policy(section: AlignmentSection, space: SearchSpace, seed: int) -> AnchorPolicy:
    """Returns the policy that a configuration with alignment asks for."""
    delay = section.delay_steps
    if section.anchor == "best":
        return BestAnchor(space, section.every, delay)
    if section.anchor == "children":
        children = num_references(section, space)
        return MeanOfChildren(space, seed=seed, num_children=children, delay_steps=delay)
    return TopPercentAnchor(
        space,
        section.every,
        seed=seed,
        top_percent=section.top_percent,
        tolerance=section.tolerance,
        pool_size=section.pool_size,
        delay_steps=delay,
    )
