"""Small trainings in one process: the loop's steps, cut and resumed, with their cost counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from toy_tenant import ToyObjective, ToySource, ToySupernet, toy_space

from magicbert.config.sections import (
    AlignmentSection,
    OptimizerSection,
    SamplingSection,
    TrainingSection,
)
from magicbert.errors import UserError
from magicbert.supernet.anchor import build_anchor_policy
from magicbert.supernet.sampling import build_sampler
from magicbert.training.dropout_seed import seed_dropout
from magicbert.training.parts import Parts, Sections
from magicbert.training.small_training import SmallTraining, check_finite

ROWS, STEPS = 4, 12
SECTIONS = Sections(
    TrainingSection(num_steps=STEPS, rows_per_step=2 * ROWS, rows_per_micro_batch=ROWS),
    OptimizerSection(learning_rate=5e-3, warmup_steps=3, clip_norm=0.5, weight_decay=0.1),
    AlignmentSection(enabled=True, num_blocks=2, every=2, num_dev_batches=2),
)


def small_training(sections: Sections = SECTIONS, flops: float = 1.0) -> SmallTraining:
    torch.manual_seed(1)
    supernet = ToySupernet(toy_space())
    alignment = sections.alignment
    anchors = build_anchor_policy(alignment, supernet.space, 3) if alignment.enabled else None
    sampler = build_sampler(SamplingSection(method="magic-t"), supernet.space, 3)
    parts = Parts(ToyObjective(), ToySource(ROWS, 2), sampler, anchors)
    return SmallTraining(supernet, parts, sections, lambda path: flops)


@pytest.mark.distributed
def test_weights_are_those_of_the_engine(tmp_path: Path) -> None:
    (found,) = run_ranks("loop_worker:small_training_is_the_same", 1, tmp_path)
    assert found["apart"] < 1e-6
    assert found["anchors"][0] == found["anchors"][1]


def test_a_training_cut_in_two_repeats_the_uncut_one_bit_by_bit(tmp_path: Path) -> None:
    whole, first, rest = small_training(), small_training(), small_training()
    losses = [float(whole.advance()) for _ in range(STEPS)]
    cut = [float(first.advance()) for _ in range(5)]
    first.save(tmp_path / "state")
    rest.restore(tmp_path / "state")
    assert losses == cut + [float(rest.advance()) for _ in range(STEPS - 5)]
    assert rest.standing == whole.standing
    for a, b in zip(whole.parameters, rest.parameters, strict=True):
        assert torch.equal(a, b)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


@pytest.mark.parametrize("content", [b"", b"no state"])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(UserError, match="no state of this training"):
        small_training().restore(tmp_path / "state")


def test_a_delayed_alignment_begins_after_its_steps() -> None:
    """Until then the weights are those of a training without alignment, and so are the FLOPs."""
    delayed = replace(SECTIONS, alignment=replace(SECTIONS.alignment, delay_steps=4))
    plain = replace(SECTIONS, alignment=replace(SECTIONS.alignment, enabled=False))
    one, other = small_training(delayed), small_training(plain)
    for step in range(6):
        one.advance()
        other.advance()
        pairs = zip(one.parameters, other.parameters, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == (step < 4), step
        assert (one.standing.flops == other.standing.flops) == (step < 4), step


def test_dropout_changes_with_seed_step_and_micro_batch() -> None:
    def draw(*place: int) -> float:
        seed_dropout(*place)
        return float(torch.rand(()))

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
    assert len({draw(*place) for place in places}) == len(places)
    assert draw(0, 1, 1) == draw(0, 1, 1)


def test_an_operator_that_was_not_sampled_keeps_weights_and_moments() -> None:
    one = small_training()
    before = {name: value.clone() for name, value in one.supernet.named_parameters()}
    one.advance()
    sampled = {f"layers.{i}.{name}." for i, name in enumerate(one.standing.path or ())}
    for name, value in one.supernet.named_parameters():
        is_idle = name.startswith("layers.") and not name.startswith(tuple(sampled))
        assert torch.equal(value, before[name]) == is_idle, name
        assert (value not in one.optimizer.state) == is_idle, name


def test_the_cost_counts_the_anchors_forward_and_its_scores() -> None:
    plain = small_training(replace(SECTIONS, alignment=AlignmentSection()), flops=10.0)
    plain.advance()
    plain.advance()
    assert plain.standing.flops == 2 * (2 * ROWS) * 3 * 10.0
    aligned = small_training(flops=10.0)
    aligned.advance()
    assert aligned.standing.flops == 2 * ROWS * 3 * 10.0, "the first step has no anchor yet"
    aligned.advance()
    # Then an anchor's forward, and a comparison: two paths on two dev batches.
    assert aligned.standing.flops == 2 * ROWS * (3 + 4) * 10.0 + 2 * 2 * ROWS * 10.0


def test_rules_that_only_the_engine_has_are_refused() -> None:
    lamb = replace(SECTIONS, optimizer=OptimizerSection(name="lamb"))
    with pytest.raises(UserError, match="knows adamw with policy path-sparse, got lamb"):
        small_training(lamb)


def test_a_diverged_loss_is_named() -> None:
    assert check_finite(1.5, 3, "alone") == 1.5
    with pytest.raises(UserError, match="alone: the loss is nan at step 3"):
        check_finite(float("nan"), 3, "alone")
