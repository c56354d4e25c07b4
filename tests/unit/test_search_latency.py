"""Latency: the table, the sum, its error, and a limit that is held with the error in mind."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time

import numpy as np
import pytest
import torch

from magicbert.bert.latency import TimedParts
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.errors import UserError
from magicbert.search.latency import Check, LatencyTable
from magicbert.search.timing import TURNS, Timing, measure
from magicbert.space import Architecture, Cost, CostModel, Limits, SearchSpace
from magicbert.space.feasible import FeasiblePaths

PATHS = [Architecture(names) for names in (("ffn", "conv3"), ("conv3", "conv3"), ("ffn", "ffn"))]
CHECKS = tuple(
    Check(path, predicted, measured)
    for path, predicted, measured in zip(PATHS, (1000, 800, 1200), (1100, 760, 1500), strict=True)
)


def timing(median: int) -> Timing:
    return Timing(median, median - 1, median + 2, 9)


TABLE = LatencyTable(
    {"processor": "one", "rows": 1},
    timing(300),
    timing(100),
    {"ffn": timing(400), "conv3": timing(200)},
    CHECKS,
)


def test_a_path_takes_the_sum_of_its_parts():
    assert TABLE.predict(PATHS[0]) == 300 + 100 + 400 + 200
    costs = TABLE.extend(CostModel({"ffn": Cost(9, 2.0), "conv3": Cost(4, 1.0)}, Cost(5)))
    for path in PATHS:
        assert costs.cost(path).latency_ns == TABLE.predict(path)
    assert costs.cost(PATHS[0]) == Cost(18, 3.0, 1000)
    assert "0.001 ms" in str(costs.cost(PATHS[0]))


def test_the_error_is_that_of_whole_models_and_tightens_the_limit():
    assert [check.error for check in CHECKS] == pytest.approx([0.1, -0.05, 0.25])
    assert TABLE.error_bound == pytest.approx(0.25)
    assert TABLE.error_quantiles() == pytest.approx({"0.5": 0.1, "0.9": 0.22, "1": 0.25})
    allowed = TABLE.limit_on_prediction(1250e-6)
    assert allowed == pytest.approx(1000e-6)
    costs = TABLE.extend(CostModel({"ffn": Cost(9), "conv3": Cost(4)}, Cost(5)))
    choices = FeasiblePaths(
        SearchSpace.uniform(2, ("ffn", "conv3")), costs, Limits(max_latency_ms=allowed)
    )
    for path in choices.enumerate():
        assert TABLE.predict(path) * (1 + TABLE.error_bound) <= 1250
    assert choices.count() == 3
    faster = dataclasses.replace(TABLE, checks=CHECKS[1:2])
    assert faster.error_bound == 0


def test_a_table_reads_back_and_names_what_differs():
    back = LatencyTable.from_json(json.loads(json.dumps(TABLE.to_json())))
    assert back == TABLE
    back.check_facts(dict(TABLE.facts), "latency.json")
    with pytest.raises(UserError) as caught:
        back.check_facts({"processor": "two", "rows": 1, "device": "cpu"}, "latency.json")
    message = str(caught.value)
    assert message.startswith("latency.json: latencies of something else")
    assert "processor is 'one' there and 'two' here" in message
    assert "device is None there and 'cpu' here" in message
    assert "rows" not in message


def test_limits_count_latencies_exactly_and_name_the_fastest():
    generator = np.random.default_rng(0)
    names = ("ffn", "conv3", "conv5")
    costs = CostModel(
        {name: Cost(int(generator.integers(9)), 1.0, int(generator.integers(1, 10**6)))
         for name in names},
        Cost(0, 0.0, 77),
    )  # fmt: skip
    space = SearchSpace.uniform(6, names)
    latencies = sorted(costs.cost(path).latency_ms for path in space.enumerate())
    limits = Limits(max_latency_ms=latencies[200])
    expected = [path for path in space.enumerate() if limits.admits(costs.cost(path))]
    found = FeasiblePaths(space, costs, limits)
    assert found.count() == len(expected) >= 201
    assert set(found.enumerate()) == set(expected)
    with pytest.raises(UserError, match=r"max_latency_ms 1e-09\); the nearest is .* ms"):
        FeasiblePaths(space, costs, Limits(max_latency_ms=1e-9)).check()
    grid = Limits(max_parameters=30).widened(Cost(1, 1.0, 10))
    assert grid == Limits(max_parameters=31)


def test_calls_are_measured_in_turns_with_their_spread():
    order: list[str] = []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    found = measure(
        {"short": lambda: call("short", 0.001), "long": lambda: call("long", 0.004)},
        num_threads=1, seconds=0.02,
    )  # fmt: skip
    assert found["short"].median_ns > 900_000
    assert found["long"].median_ns > 3_600_000
    for one in found.values():
        assert one.low_ns <= one.median_ns <= one.high_ns
        assert one.num_runs >= TURNS
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes >= 2 * TURNS - 1


def test_parts_and_whole_models_run_on_the_asked_batch():
    config = MagicBertConfig(architecture="", vocab_size=50, hidden_size=16,
                             max_position_embeddings=24, pad_token_id=0)  # fmt: skip
    parts = TimedParts(config, 3, 20, torch.bfloat16, torch.device("cpu"))
    assert parts.embeddings()().shape == (3, 20, 16)
    assert parts.head()().shape == (3, 2)
    for name, call in parts.operators(("mha2", "ffn", "conv3")).items():
        result = call()
        assert result.shape == (3, 20, 16), name
        assert result.dtype == torch.bfloat16
        assert not result.requires_grad
    logits = parts.whole(Architecture(("mha2", "conv3")))().logits
    assert logits.shape == (3, 2)
    assert logits.dtype == torch.bfloat16
    assert config.architecture == ""
