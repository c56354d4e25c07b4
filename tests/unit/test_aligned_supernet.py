"""The aligned supernet of MAGIC's analysis: paths drawn to the mean of random children."""

from __future__ import annotations

import pytest
import torch
from toy_tenant import OPERATORS, ToyBatch, ToyObjective, ToySupernet

from magicbert.config.roots import PretrainConfig
from magicbert.config.sections import AlignmentSection, TrainingSection
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.anchor import MeanOfChildren, build_anchor_policy
from magicbert.training.module import StepPlan, TrainingModule

SPACE = SearchSpace.uniform(4, OPERATORS)
SECTION = AlignmentSection(enabled=True, anchor="children", num_blocks=0, weight=0.5)
PATH = Architecture(("small", "large", "middle", "small"))


def policy(num_children: int = 0) -> MeanOfChildren:
    section = AlignmentSection(enabled=True, anchor="children", num_children=num_children)
    found = build_anchor_policy(section, SPACE, 3)
    assert isinstance(found, MeanOfChildren)
    return found


def test_children_are_a_function_of_the_step_and_hold_the_trained_path():
    assert len(policy().children(0, PATH)) == 3
    assert len(policy(5).children(0, PATH)) == 5
    assert policy().children(7, PATH) == policy().children(7, PATH)
    assert policy().children(7, PATH) != policy().children(8, PATH)
    assert policy().children(7, PATH)[0] == PATH
    assert all(child in SPACE for child in policy(20).children(1, PATH))


def test_there_is_no_anchor_and_nothing_to_compare():
    one = policy()
    assert one.update(0, PATH, lambda path: 1 / 0) is None
    assert one.anchor is None
    one.restore(one.state())


def test_the_loss_is_the_distance_to_the_mean_of_all_layers_outputs():
    torch.manual_seed(0)
    supernet = ToySupernet(SPACE).double()
    generator = torch.Generator().manual_seed(1)
    batch = ToyBatch(
        torch.randn(5, 8, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 1, 0, -1])
    )
    children = policy().children(2, PATH)
    plan = StepPlan(2, PATH, None, 4, 5, children=children)
    loss, task, aligned, _ = TrainingModule(supernet, ToyObjective(), SECTION)(batch, plan)
    ends = (1, 2, 3, 4)
    outputs = [supernet(batch, child, ends).block_outputs for child in children]
    means = [torch.stack(layer).mean(0).detach() for layer in zip(*outputs, strict=True)]
    own = supernet(batch, PATH, ends).block_outputs
    expected = torch.stack([(a - b).square().mean() for a, b in zip(own, means, strict=True)])
    torch.testing.assert_close(aligned, expected.mean().detach())
    torch.testing.assert_close(loss.detach(), task + 0.5 * aligned)
    # The mean is a constant: only the trained path gets gradients.
    loss.backward()
    trained = {f"layers.{i}.{name}." for i, name in enumerate(PATH)}
    for name, parameter in supernet.named_parameters():
        is_trained = not name.startswith("layers.") or any(map(name.startswith, trained))
        assert (parameter.grad is not None) == is_trained, name


@pytest.mark.parametrize(("stage", "num_problems"), [(1, 0), (3, 1)])
def test_stage_3_gathers_one_anchor_only(stage, num_problems):
    config = PretrainConfig(alignment=SECTION, training=TrainingSection(zero_stage=stage))
    problems = [p for p in config.validate() if p.startswith("alignment.anchor")]
    assert len(problems) == num_problems
