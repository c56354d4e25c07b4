"""MAGIC-A inside a block: each width has its own anchor, for hidden states must be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.anchor import AnchorEvent, AnchorPolicy, BestAnchor, ScorePaths


class AnchorPerWidth(AnchorPolicy):
    """The best path so far among those of the sampled path's width.

    There is no anchor for all paths, so `anchor` stays ``None``; `children` names the one that a
    path is aligned to.

    Args:
        space: the block's choices; the first one is the width.
        every: steps of one width between two comparisons.
        delay_steps: first steps, of all widths together, that are trained without alignment.
    """

    def __init__(self, space: SearchSpace, every: int, delay_steps: int = 0) -> None:
        super().__init__(space, every, delay_steps)
        self.policies = {width: BestAnchor(space, every) for width in space.layers[0]}
        self.steps = dict.fromkeys(self.policies, 0)

    def children(self, step: int, sampled: Architecture) -> tuple[Architecture, ...]:
        """Returns the anchor of the sampled path's width, once there is one."""
        anchor = self.policies[sampled[0]].anchor
        return () if anchor is None else (anchor,)

    def update(self, step: int, sampled: Architecture, score: ScorePaths) -> AnchorEvent | None:
        """Takes note of a finished step, as a step of its width alone."""
        if step + 1 < self.delay_steps:
            return None
        width = sampled[0]
        self.steps[width] += 1
        return self.policies[width].update(self.steps[width] - 1, sampled, score)

    def compare(
        self, step: int, anchor: Architecture, sampled: Architecture, score: ScorePaths
    ) -> AnchorEvent | None:
        """Compares within the width of the sampled path."""
        return self.policies[sampled[0]].compare(step, anchor, sampled, score)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold, as JSON data."""
        anchors = {width: policy.state() for width, policy in self.policies.items()}
        return {"anchors": anchors, "steps": dict(self.steps)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        for width, policy in self.policies.items():
            policy.restore(state["anchors"][width])
            self.steps[width] = int(state["steps"][width])
