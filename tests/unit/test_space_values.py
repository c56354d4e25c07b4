"""Architectures and search spaces as values: parsing, counting, sampling, neighbours, JSON."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace

OPERATORS = ("mha2", "ffn", "conv3", "conv5x64")


def random_space(generator: np.random.Generator) -> SearchSpace:
    """A space of 1..5 layers with 1..4 candidates each."""
    layers = []
    for _ in range(int(generator.integers(1, 6))):
        size = int(generator.integers(1, 5))
        layers.append(tuple(generator.permutation(OPERATORS)[:size].tolist()))
    return SearchSpace(tuple(layers))


def test_round_trips_on_random_spaces():
    generator = np.random.default_rng(0)
    for _ in range(100):
        space = random_space(generator)
        assert SearchSpace.from_json(json.loads(json.dumps(space.to_json()))) == space
        architecture = space.sample(generator)
        assert architecture in space
        assert Architecture.parse(str(architecture)) == architecture
        assert hash(Architecture.parse(str(architecture))) == hash(architecture)


def test_enumeration_yields_count_distinct_members():
    generator = np.random.default_rng(1)
    for _ in range(30):
        space = random_space(generator)
        listed = list(space.enumerate())
        assert len(listed) == len(set(listed)) == space.count()
        assert all(architecture in space for architecture in listed)


def test_neighbours_are_all_members_at_the_distance():
    generator = np.random.default_rng(2)
    for _ in range(30):
        space = random_space(generator)
        center = space.sample(generator)
        for distance in (0, 1, 2):
            expected = {a for a in space.enumerate() if a.distance(center) == distance}
            found = list(space.neighbours(center, distance))
            assert len(found) == len(set(found))
            assert set(found) == expected


def test_the_number_of_neighbours_is_that_of_the_hamming_graph():
    space = SearchSpace.uniform(24, OPERATORS)
    center = Architecture(("ffn",) * 24)
    assert sum(1 for _ in space.neighbours(center)) == 24 * 3
    assert sum(1 for _ in space.neighbours(center, 2)) == math.comb(24, 2) * 9


def test_samples_are_uniform():
    space = SearchSpace((("mha2", "ffn", "conv3"), ("ffn",), ("mha2", "ffn")))
    generator = np.random.default_rng(3)
    counts = Counter(space.sample(generator) for _ in range(3000))
    assert chisquare([counts[a] for a in space.enumerate()]).pvalue > 1e-3


def test_values_do_not_change():
    space = SearchSpace.uniform(2, ("mha2", "ffn"))
    smaller = space.without(0, "ffn")
    assert space.layers == (("mha2", "ffn"), ("mha2", "ffn"))
    assert smaller.layers == (("mha2",), ("mha2", "ffn"))
    architecture = Architecture(("mha2", "ffn"))
    assert architecture.replace(0, "ffn") == Architecture(("ffn", "ffn"))
    assert architecture.operators == ("mha2", "ffn")
    with pytest.raises(AttributeError):
        architecture.operators = ()  # type: ignore[misc]


def test_a_space_of_one_architecture():
    architecture = Architecture(("mha2", "ffn"))
    space = SearchSpace.of(architecture)
    assert space.count() == 1
    assert list(space.enumerate()) == [architecture]
    assert list(space.neighbours(architecture)) == []


def test_an_architecture_that_does_not_fit_names_layer_value_and_offers():
    space = SearchSpace((("mha2", "ffn"), ("ffn", "conv3")))
    with pytest.raises(UserError, match=r"layer 1 is 'mha2', the space offers ffn, conv3"):
        space.check(Architecture.parse("ffn-mha2"))
    with pytest.raises(UserError, match=r"has 3 layers, the space has 2"):
        space.check(Architecture.parse("ffn-ffn-ffn"))


@pytest.mark.parametrize("text", ["", "mha2-", "-ffn", "MHA2-ffn", "mha2--ffn", "mha2 ffn", "2x"])
def test_text_that_is_no_architecture_is_refused(text):
    with pytest.raises(UserError, match="operator name"):
        Architecture.parse(text)


@pytest.mark.parametrize("data", [None, {}, [], [[]], ["ffn"], [["ffn", "ffn"]], [["FFN"]], [[1]]])
def test_json_that_is_no_space_is_refused(data):
    with pytest.raises(UserError):
        SearchSpace.from_json(data)


def test_masking_the_last_operator_of_a_layer_is_refused():
    with pytest.raises(UserError, match="layer 0"):
        SearchSpace.uniform(2, ("ffn",)).without(0, "ffn")
