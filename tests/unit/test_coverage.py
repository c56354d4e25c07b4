"""What was trained how often: the walk made again against the paths as they were drawn."""

from __future__ import annotations

import pytest

from magicbert.config.sections import SamplingSection
from magicbert.report.coverage_part import coverage_figure, coverage_numbers
from magicbert.space import SearchSpace
from magicbert.supernet.coverage import walk_again
from magicbert.supernet.sampling import build_sampler

SPACE = SearchSpace((("a", "b", "c"), ("a", "b", "c", "d"), ("c",)))


@pytest.mark.parametrize("method", ["uniform", "magic-t", "strict-fair"])
def test_counts_are_those_of_the_paths(method):
    sampler = build_sampler(SamplingSection(method=method), SPACE, 7)
    paths, path = [], None
    for step in range(50):
        path = sampler.next(step, path)
        paths.append(path)
    found = walk_again(sampler, SPACE, 50)
    for layer, candidates in enumerate(SPACE.layers):
        for name in candidates:
            assert found.operators[layer, name] == sum(p[layer] == name for p in paths)
    assert found.pairs[0, "b", "d"] == sum((p[0], p[1]) == ("b", "d") for p in paths)
    assert sum(found.pairs.values()) == 2 * 50


def test_what_was_never_trained_is_said():
    sampler = build_sampler(SamplingSection(), SPACE, 1)
    found = walk_again(sampler, SPACE, 1)
    assert found.num_untrained == (8 - 3, 3 * 4 + 4 * 1 - 2)
    assert "5 operators and 14 pairs never were" in coverage_figure(found)
    rows = coverage_numbers("pretrain", found).rows
    assert len(rows) == 8 + 12 + 4
    assert sum(row[3] for row in rows if not row[2]) == 3
