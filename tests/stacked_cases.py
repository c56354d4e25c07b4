"""What tests of stacked trainings share: settings, batches of several forms, a distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import small_supernet

from magicbert.config.sections import AlignmentSection, OptimizerSection, TrainingSection
from magicbert.data.batch import TokenBatch
from magicbert.training.parts import Sections
from magicbert.training.small_training import SmallTraining
from magicbert.training.stacked_training import StackedTraining

ROWS, STEPS, CLIP = 3, 8, 0.5
SECTIONS = Sections(
    TrainingSection(num_steps=STEPS, rows_per_step=2 * ROWS, rows_per_micro_batch=ROWS),
    OptimizerSection(learning_rate=5e-3, warmup_steps=3, clip_norm=CLIP, weight_decay=0.1),
    AlignmentSection(),
)


class Batches:
    """Two micro-batches per step; each seed has its own, full, padded and packed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[TokenBatch]:
        forms = small_supernet.FORMS
        numbers = [1000 * self.seed + 2 * step, 1000 * self.seed + 2 * step + 1]
        batches = [small_supernet.batch(n, forms[(n + self.seed) % len(forms)]) for n in numbers]
        # Models have different numbers of predictions.
        return [predicting(batch, 1 + (self.seed + step) % 6) for batch in batches]

    def dev_batches(self, num_batches: int) -> list[TokenBatch]:
        return [small_supernet.batch(-1 - i, "full") for i in range(num_batches)]


def predicting(batch: TokenBatch, number: int) -> TokenBatch:
    """Keeps some of the predictions, none of them of padding."""
    positions = batch.predicted_positions
    kept = (batch.segment_ids.flatten()[positions] > 0).nonzero().flatten()[:number]
    return replace(batch, predicted_positions=positions[kept], labels=batch.labels[kept])


def assert_cut_repeats(
    make: Callable[[], list[SmallTraining]],
    stack: Callable[[Sequence[SmallTraining]], StackedTraining],
    steps: int,
    folder: Path,
) -> None:
    """A stack that is cut after some steps makes the very same ones as an uncut stack."""
    whole, first, rest = make(), make(), make()
    uncut, begun = stack(whole), stack(first)
    losses = [uncut.advance().tolist() for _ in range(STEPS)]
    cut = [begun.advance().tolist() for _ in range(steps)]
    begun.hand_back()
    for number, (one, other) in enumerate(zip(first, rest, strict=True)):
        one.save(folder / str(number))
        other.restore(folder / str(number))
    again = stack(rest)
    assert losses == cut + [again.advance().tolist() for _ in range(STEPS - steps)]
    for together in (uncut, again):
        together.hand_back()
    for one, other in zip(whole, rest, strict=True):
        assert one.standing == other.standing
        assert apart(one, other) == 0.0


def apart(one: SmallTraining, other: SmallTraining) -> float:
    pairs = zip(one.parameters, other.parameters, strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)
