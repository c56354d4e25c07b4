"""Stacked trainings of supernets against the same trainings one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import small_supernet
from stacked_cases import SECTIONS, STEPS, Batches, apart, assert_cut_repeats

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.stacked_supernet import StackedBert
from magicbert.bert.supernet import build_supernet
from magicbert.config.sections import AlignmentSection, ModelSection, SamplingSection
from magicbert.space import SearchSpace
from magicbert.supernet.anchor import build_anchor_policy
from magicbert.supernet.sampling import build_sampler
from magicbert.training.parts import Parts
from magicbert.training.small_training import SmallTraining
from magicbert.training.stacked_training import StackedTraining

SPACE = SearchSpace.uniform(4, ("mha2", "ffn", "conv3", "skip"))
ALIGNED = AlignmentSection(enabled=True, num_blocks=2, every=1, num_dev_batches=3, weight=0.7)
UNIFORM, GRADUAL = SamplingSection(), SamplingSection(method="magic-t", num_changes=2)
# Every method, aligned at other places, from other steps on, and with other policies.
METHODS: tuple[tuple[SamplingSection, AlignmentSection], ...] = (
    (UNIFORM, AlignmentSection()),
    (GRADUAL, AlignmentSection()),
    (UNIFORM, ALIGNED),
    (GRADUAL, replace(ALIGNED, num_blocks=1, weight=2.0)),
    (GRADUAL, replace(ALIGNED, num_blocks=0, delay_steps=4, form="sum")),
    (UNIFORM, replace(ALIGNED, anchor="top-percent", top_percent=50.0, pool_size=5)),
    (SamplingSection(method="strict-fair"), AlignmentSection()),
)


def supernet_training(
    seed: int, sampling: SamplingSection, alignment: AlignmentSection
) -> SmallTraining:
    """A supernet in double precision."""
    sizes = ModelSection(
        hidden_size=16, embedding_size=8, max_length=small_supernet.LENGTH, dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    supernet = build_supernet(SPACE, sizes, small_supernet.VOCABULARY, 0, seed=seed).double()
    anchors = build_anchor_policy(alignment, SPACE, seed) if alignment.enabled else None
    sampler = build_sampler(sampling, SPACE, seed)
    parts = Parts(MaskedLanguageModeling(), Batches(seed), sampler, anchors)
    optimizer = replace(SECTIONS.optimizer, learning_rate=1e-3 * (3 + seed), warmup_steps=1 + seed)
    sections = replace(SECTIONS, alignment=alignment, optimizer=optimizer)
    return SmallTraining(supernet, parts, sections, lambda path: 1.0 + list(path).count("ffn"))


def trainings() -> list[SmallTraining]:
    return [supernet_training(seed, *method) for seed, method in enumerate(METHODS)]


def stacked(members: Sequence[SmallTraining]) -> StackedTraining:
    return StackedTraining(members, StackedBert([member.supernet for member in members]))


def assert_at_one(one: SmallTraining, other: SmallTraining) -> None:
    """Both stand at one step with one anchor, and trained the same weights."""
    assert one.standing == other.standing
    if one.parts.anchors:
        assert one.parts.anchors.state() == other.parts.anchors.state()
    assert apart(one, other) < 1e-9
    for a, b in zip(one.parameters, other.parameters, strict=True):
        own, others = one.optimizer.state.get(a, {}), other.optimizer.state.get(b, {})
        assert own.get("step") == others.get("step"), "operators off the path stay as they are"


def test_every_method_gets_the_weights_of_a_single_training() -> None:
    single, members = trainings(), trainings()
    together = stacked(members)
    for _ in range(STEPS):
        losses = together.advance()
        assert losses.tolist() == pytest.approx([float(one.advance()) for one in single], 1e-8)
        assert [one.standing for one in single] == [member.standing for member in members]
    together.hand_back()
    for one, member in zip(single, members, strict=True):
        assert_at_one(one, member)
    assert sum(training.standing.replaced for training in members) > 0
    steps = {int(state["step"]) for state in members[0].optimizer.state.values()}
    assert len(steps) > 1, "operators were trained in different numbers of steps"


def test_alignment_has_a_say_in_the_gradients() -> None:
    """Were it left out of a stack, the comparison above would not have to notice at once."""
    plain, aligned = (
        supernet_training(0, UNIFORM, AlignmentSection()),
        supernet_training(0, UNIFORM, ALIGNED),
    )
    together = stacked([plain, aligned])
    together.advance()
    together.hand_back()
    assert apart(plain, aligned) == 0.0, "there is no anchor before the first step"
    together.advance()
    together.hand_back()
    assert apart(plain, aligned) > 1e-6


def test_a_stack_cut_in_two_repeats_the_uncut_one_bit_by_bit(tmp_path: Path) -> None:
    assert_cut_repeats(trainings, stacked, 5, tmp_path)


def test_a_member_leaves_the_stack_at_any_step() -> None:
    single, members = supernet_training(3, *METHODS[3]), trainings()
    together = stacked(members)
    for _ in range(4):
        together.advance()
    together.hand_back()
    for _ in range(3):
        members[3].advance()
    for _ in range(7):
        single.advance()
    assert_at_one(single, members[3])
