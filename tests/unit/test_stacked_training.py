"""Stacked trainings against the same trainings one by one: weights, clipping, moments, rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import small_supernet
import torch
from no_waiting import no_waiting
from stacked_cases import SECTIONS, STEPS, Batches, apart, assert_cut_repeats

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.stacked_supernet import StackedBert
from magicbert.bert.supernet import build_supernet
from magicbert.config.sections import (
    ModelSection,
    SamplingSection,
)
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.sampling import build_sampler
from magicbert.supernet.stacked_modules import stack_modules
from magicbert.training.parts import Parts
from magicbert.training.small_training import SmallTraining
from magicbert.training.stacked_training import StackedTraining

# Operators come again in other models and other layers, alone and together.
PATHS = (
    "mha2-conv3-ffn-conv5",
    "mha2-mha2-ffn-skip",
    "ffn-conv3-ffn-conv5x24",
    "conv3-mha2-ffn-conv5",
    "mha2-conv3-ffn-conv5",
)


def bert_training(path: str, seed: int, dropout: float = 0.0) -> SmallTraining:
    """A model in double precision."""
    space = SearchSpace.of(Architecture.parse(path))
    sizes = ModelSection(
        hidden_size=16, embedding_size=8, max_length=small_supernet.LENGTH, dropout=dropout,
        attention_dropout=0.0,
    )  # fmt: skip
    supernet = build_supernet(space, sizes, small_supernet.VOCABULARY, 0, seed=seed).double()
    sampler = build_sampler(SamplingSection(), space, seed)
    parts = Parts(MaskedLanguageModeling(), Batches(seed), sampler, None)
    return SmallTraining(supernet, parts, SECTIONS, lambda path: 1.0)


def trainings() -> list[SmallTraining]:
    return [bert_training(path, seed) for seed, path in enumerate(PATHS)]


def stacked(members: Sequence[SmallTraining]) -> StackedTraining:
    return StackedTraining(members, StackedBert([member.supernet for member in members]))


def test_stacked_models_get_the_weights_of_single_ones() -> None:
    single, members = trainings(), trainings()
    together = stacked(members)
    for _ in range(STEPS):
        losses = together.advance()
        assert losses.tolist() == pytest.approx([float(one.advance()) for one in single], 1e-6)
    assert apart(single[0], members[0]) > 1e-3, "not handed back yet"
    together.hand_back()
    for one, member in zip(single, members, strict=True):
        assert apart(one, member) < 1e-10
        assert member.standing == one.standing
        for a, b in zip(one.parameters, member.parameters, strict=True):
            states = one.optimizer.state[a], member.optimizer.state[b]
            for name in ("step", "exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-8, atol=1e-14)


def test_every_model_is_clipped_by_its_own_norm() -> None:
    """One model has huge gradients, one has tiny ones, which stay as they are."""
    single, together = trainings(), stacked(trainings())
    factors = [1.0, 1e4, 1e-6, 1.0, 1.0]
    chosen = together.models.choose([Architecture.parse(path) for path in PATHS]).chosen
    generator = torch.Generator().manual_seed(0)
    for one in chosen:
        gradient = torch.randn(one.rows.shape, generator=generator).double()
        one.rows.grad = gradient * torch.tensor([[factors[model]] for model in one.models])
        for name, values in one.part.named(one.rows.grad).items():
            for model, value in zip(one.models, values, strict=True):
                single[model].supernet.get_parameter(name).grad = value.clone()
    owners = torch.tensor([model for one in chosen for model in one.models])
    scales = together.optimizer.clip_scales(chosen, owners)
    for training in single:
        training.clip()
    for one, own in zip(chosen, scales.split([len(one.models) for one in chosen]), strict=True):
        assert one.rows.grad is not None
        for name, values in one.part.named(one.rows.grad * own[:, None]).items():
            for model, value in zip(one.models, values, strict=True):
                wanted = single[model].supernet.get_parameter(name).grad
                torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    by_model = dict(zip(owners.tolist(), scales.tolist(), strict=True))
    assert by_model[2] == 1.0
    assert by_model[1] < 1e-3 < by_model[0] < 1.0


def test_a_stack_cut_in_two_repeats_the_uncut_one_bit_by_bit(tmp_path: Path) -> None:
    assert_cut_repeats(trainings, stacked, 3, tmp_path)


def test_a_member_goes_on_by_itself_from_what_is_handed_back(tmp_path: Path) -> None:
    single, members = bert_training(PATHS[2], 2), trainings()
    together = stacked(members)
    for _ in range(3):
        together.advance()
    together.hand_back()
    for _ in range(3):
        members[2].advance()
    for _ in range(6):
        single.advance()
    assert apart(single, members[2]) < 1e-10


@pytest.mark.parametrize("form", small_supernet.FORMS)
def test_a_step_of_a_stack_reads_no_value(form: str) -> None:
    members = trainings()
    together = stacked(members)
    batches = [small_supernet.batch(number, form) for number in range(len(PATHS))]
    collated = together.models.collate(batches)
    plans = [
        member.plan(0, Architecture.parse(path), [batch])
        for member, path, batch in zip(members, PATHS, batches, strict=True)
    ]
    with no_waiting():
        losses = together.update(plans, [collated])
    assert losses.isfinite().all()


def test_models_with_dropout_are_refused() -> None:
    training = bert_training(PATHS[0], 0, dropout=0.1)
    with pytest.raises(UserError, match=r"models_at_once: .* no dropout; .* models_at_once to 1"):
        StackedBert([training.supernet])


def test_a_module_with_weights_of_an_unknown_kind_is_refused() -> None:
    class Scaled(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    with pytest.raises(TypeError, match="Scaled has weights and no stacked form"):
        stack_modules([torch.nn.Sequential(Scaled(2, 2))], {})
