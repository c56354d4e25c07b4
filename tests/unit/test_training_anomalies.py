"""Which steps are bad, when there are too many of them, and who is slow."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import torch

from magicbert.config.sections import TrainingSection
from magicbert.training.numbers.anomalies import Anomalies
from magicbert.training.numbers.weight_checks import checksums, outvoted
from magicbert.training.watching.stragglers import straggler

TRAINING = TrainingSection(max_skips_in_a_row=3, max_skips_per_1000=5, spike_factor=10.0)


def settled(training: TrainingSection = TRAINING) -> Anomalies:
    anomalies = Anomalies(training)
    draw = random.Random(0)
    for step in range(100):
        assert anomalies.judge(step, 2.0 + draw.uniform(-0.1, 0.1), False) is None
    return anomalies


def test_skips_in_a_row_end_it_and_a_good_step_starts_anew() -> None:
    anomalies = Anomalies(TRAINING)
    verdicts = [anomalies.judge(step, math.nan, step != 2) for step in range(6)]
    assert verdicts[2] is not None  # its loss is not finite all the same
    assert [v.is_last_straw for v in verdicts if v] == [False, False, False, False, False, True]


def test_scattered_skips_end_it_within_a_thousand_steps_only() -> None:
    for distance, expected in ((100, True), (300, False)):
        anomalies = Anomalies(TRAINING)
        for number in range(5):
            last = anomalies.judge(number * distance, 1.0, True)
            assert anomalies.judge(number * distance + 1, 1.0, False) is None
        assert last is not None
        assert last.is_last_straw == expected


def test_a_spike_is_named_and_does_not_move_the_median() -> None:
    anomalies = settled()
    before = anomalies.threshold
    found = anomalies.judge(100, 200.0, False)
    assert found is not None
    assert (found.kind, found.is_last_straw) == ("spike", False)
    assert anomalies.threshold == before
    stopping = settled(replace(TRAINING, on_spike="stop")).judge(100, 200.0, False)
    assert stopping is not None
    assert stopping.is_last_straw


def test_too_few_losses_are_no_yardstick() -> None:
    anomalies = Anomalies(TRAINING)
    assert all(anomalies.judge(step, 1.0, False) is None for step in range(10))
    assert anomalies.judge(10, 1e6, False) is None


def test_the_slow_rank_is_named_when_it_matters() -> None:
    assert straggler([1.0, 9.0, 1.1], 10.0) is not None
    assert "rank 1" in str(straggler([1.0, 9.0, 1.1], 10.0))
    assert straggler([0.1, 0.9, 0.1], 10.0) is None, "a small share of the time"
    assert straggler([5.0, 6.0], 10.0) is None
    assert straggler([9.0], 10.0) is None


def test_any_flipped_bit_changes_a_checksum() -> None:
    module = torch.nn.Linear(3, 3)
    before = checksums(module)
    words = module.weight.data.view(-1).view(torch.int32)
    for bit in range(31):
        words[4] ^= 1 << bit
        assert checksums(module) != before
        words[4] ^= 1 << bit
    assert checksums(module) == before


def test_a_majority_outvotes() -> None:
    good, bad = {"a": 1, "b": 2}, {"a": 1, "b": 3}
    assert "rank 1: b is not what 2 other ranks hold" in outvoted([good, bad, good])[0]
    assert outvoted([good, bad]) == []
