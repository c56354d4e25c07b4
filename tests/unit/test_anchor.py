"""Anchor policies decide from scores alone, all taken with the weights of the moment."""

from __future__ import annotations

import json
from collections.abc import Collection

import pytest

from magicbert.config.sections import AlignmentSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.anchor import AnchorEvent, BestAnchor, TopPercentAnchor, build_anchor_policy

SPACE = SearchSpace.uniform(2, ("a", "b", "c"))
PATHS = list(SPACE.enumerate())


class Scorer:
    """Scores by a table that may change with time; keeps what was asked."""

    def __init__(self, table):
        self.table = table
        self.asked = []

    def __call__(self, paths: Collection[Architecture]) -> dict[Architecture, float]:
        self.asked.extend(paths)
        return {path: self.table[path] for path in paths}


def test_the_first_path_is_the_first_anchor_and_is_not_scored():
    policy, scorer = BestAnchor(SPACE, every=1), Scorer({})
    assert policy.anchor is None
    assert policy.update(0, PATHS[3], scorer) is None
    assert policy.anchor == PATHS[3]
    assert scorer.asked == []


def test_a_better_path_takes_over_and_a_tie_does_not():
    policy = BestAnchor(SPACE, every=1)
    policy.update(0, PATHS[0], Scorer({}))
    tie = policy.update(1, PATHS[1], Scorer({PATHS[0]: 0.5, PATHS[1]: 0.5}))
    assert tie is not None
    assert not tie.replaced
    assert policy.anchor == PATHS[0]
    win = policy.update(2, PATHS[1], Scorer({PATHS[0]: 0.5, PATHS[1]: 0.6}))
    assert win == AnchorEvent(2, PATHS[0], 0.5, PATHS[1], 0.6, replaced=True)
    assert policy.anchor == PATHS[1]


def test_the_anchor_is_scored_again_at_each_comparison():
    """A stored 0.9 from early weights would keep the anchor for ever."""
    policy = BestAnchor(SPACE, every=1)
    policy.update(0, PATHS[0], Scorer({}))
    policy.update(1, PATHS[1], Scorer({PATHS[0]: 0.9, PATHS[1]: 0.1}))
    later = Scorer({PATHS[0]: 0.2, PATHS[1]: 0.3})
    policy.update(2, PATHS[1], later)
    assert set(later.asked) == {PATHS[0], PATHS[1]}
    assert policy.anchor == PATHS[1]


def test_comparisons_come_every_m_steps():
    policy = BestAnchor(SPACE, every=5)
    scorer = Scorer(dict.fromkeys(PATHS, 0.0))
    compared = [s for s in range(20) if policy.update(s, PATHS[s % 2], scorer) is not None]
    assert compared == [9, 19]  # after steps 5 and 15 the anchor itself had been sampled
    assert BestAnchor(SPACE, every=5).update(9, PATHS[0], scorer) is None


@pytest.mark.parametrize("kind", ["best", "top-percent"])
def test_a_delay_leaves_the_first_steps_without_anchor_or_scores(kind):
    section = AlignmentSection(enabled=True, anchor=kind, every=1, delay_steps=3)
    policy, scorer = build_anchor_policy(section, SPACE, 0), Scorer(dict.fromkeys(PATHS, 0.0))
    for step in range(2):
        assert policy.update(step, PATHS[step], scorer) is None
        assert policy.anchor is None
    assert policy.update(2, PATHS[2], scorer) is None
    assert policy.anchor == PATHS[2]
    assert scorer.asked == []
    assert policy.update(3, PATHS[3], scorer) is not None


def test_a_delay_holds_for_the_mean_of_children():
    section = AlignmentSection(enabled=True, anchor="children", num_children=3, delay_steps=2)
    policy = build_anchor_policy(section, SPACE, 0)
    counts = [len(policy.children(step, PATHS[0])) for step in range(4)]
    assert counts == [0, 0, 3, 3]


def test_top_percent_keeps_the_anchor_within_the_tolerance():
    """Nine paths ranked 0, 12.5, ... 100%: p=25 is the third best, r=13 allows its neighbours."""
    table = {path: float(-index) for index, path in enumerate(PATHS)}
    for start in range(9):
        policy = TopPercentAnchor(SPACE, 1, seed=0, top_percent=25.0, tolerance=13.0, pool_size=50)
        policy.update(0, PATHS[start], Scorer({}))
        event = policy.update(1, PATHS[8], Scorer(table))
        assert event is not None
        assert event.rank_percent == 12.5 * start
        assert event.challenger == PATHS[2]
        assert event.replaced == (start not in (1, 2, 3))
        assert policy.anchor == (PATHS[start] if start in (1, 2, 3) else PATHS[2])


def test_the_pool_is_a_function_of_seed_and_step():
    space = SearchSpace.uniform(8, ("a", "b", "c"))
    settings = {"top_percent": 30.0, "tolerance": 5.0, "pool_size": 12}
    one, two = (TopPercentAnchor(space, 1, seed=4, **settings) for _ in range(2))
    one.pool(1)
    assert one.pool(7) == two.pool(7)
    assert len(one.pool(7)) == 12
    assert one.pool(7) != one.pool(8)
    assert one.pool(7) != TopPercentAnchor(space, 1, seed=5, **settings).pool(7)


@pytest.mark.parametrize("kind", ["best", "top-percent"])
def test_state_survives_json(kind):
    section = AlignmentSection(anchor=kind, every=1)
    table = {path: float(index) for index, path in enumerate(PATHS)}
    whole, first = (build_anchor_policy(section, SPACE, 0) for _ in range(2))
    for step in range(3):
        whole.update(step, PATHS[step], Scorer(table))
        first.update(step, PATHS[step], Scorer(table))
    second = build_anchor_policy(section, SPACE, 0)
    second.restore(json.loads(json.dumps(first.state())))
    for step in range(3, 6):
        assert second.update(step, PATHS[step], Scorer(table)) == whole.update(
            step, PATHS[step], Scorer(table)
        )
    assert second.anchor == whole.anchor


def test_state_before_the_first_step_and_of_another_space():
    policy = BestAnchor(SPACE, 1)
    policy.restore(BestAnchor(SPACE, 1).state())
    assert policy.anchor is None
    with pytest.raises(UserError, match="layer 1 is 'x'"):
        policy.restore({"anchor": "a-x"})
