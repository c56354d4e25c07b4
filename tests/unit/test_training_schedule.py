"""The learning rate is a pure function of the step."""

from __future__ import annotations

import math

import pytest

from magicbert.config.sections import OptimizerSection
from magicbert.training.schedule import learning_rate

PEAK, WARMUP, STEPS = 0.5, 10, 110


def rates(schedule: str) -> list[float]:
    section = OptimizerSection(learning_rate=PEAK, warmup_steps=WARMUP, schedule=schedule)  # type: ignore[arg-type]
    return [learning_rate(section, step, STEPS) for step in range(STEPS)]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_warm_up_is_linear_and_reaches_the_peak(schedule: str) -> None:
    warmup = rates(schedule)[:WARMUP]
    assert warmup == pytest.approx([PEAK * (step + 1) / WARMUP for step in range(WARMUP)])


def test_linear_decay_ends_one_step_before_zero() -> None:
    decay = rates("linear")[WARMUP:]
    assert decay[0] == PEAK
    assert decay[-1] == pytest.approx(PEAK / (STEPS - WARMUP))


def test_cosine_decay_passes_half_the_peak_in_the_middle() -> None:
    decay = rates("cosine")[WARMUP:]
    assert decay[0] == PEAK
    assert decay[len(decay) // 2] == pytest.approx(PEAK / 2)
    assert decay[25] == pytest.approx(PEAK * 0.5 * (1 + math.cos(math.pi / 4)))


def test_constant_stays_at_the_peak() -> None:
    assert set(rates("constant")[WARMUP:]) == {PEAK}


def test_a_warm_up_longer_than_the_run_is_cut_to_it() -> None:
    section = OptimizerSection(learning_rate=PEAK, warmup_steps=10_000)
    assert learning_rate(section, 4, 5) == PEAK


def test_no_warm_up_starts_at_the_peak() -> None:
    section = OptimizerSection(learning_rate=PEAK, warmup_steps=0)
    assert learning_rate(section, 0, 5) == PEAK
