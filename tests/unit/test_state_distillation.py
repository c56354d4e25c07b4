"""Hidden states and attention relations of a teacher: the loss, its gradient, what is kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from bert_examples import FULL, PACKED, PADDED, batch, config, randomise
from tiny_compression import write_run
from torch import Tensor

from magicbert.bert.extraction import extract
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.objectives.distillation import DistilledMaskedLanguageModeling
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.objectives.state_distillation import StateDistillation, relation_divergence
from magicbert.bert.saving import load_supernet, save_supernet
from magicbert.bert.state_matching import StateMatching
from magicbert.bert.supernet import BertSupernet
from magicbert.bert.taught_supernet import TaughtSupernet
from magicbert.bert.teacher import Teacher
from magicbert.config.roots import RetrainConfig
from magicbert.config.sections import (
    AlignmentSection,
    DistillationSection,
    ModelSection,
    RunSection,
    TrainingSection,
)
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.stages import retrain
from magicbert.training.module import StepPlan, TrainingModule

TEACHER = "mha2-ffn-mha4-conv3"
STUDENT = "ffn-conv3-mha2-ffn24"
SECTION = DistillationSection(
    teacher="there", weight=0.3, temperature=2.0, hidden_weight=0.7, hidden_points=2,
    attention_weight=0.4, relation_heads=4,
)  # fmt: skip


def plain(architecture: str, width: int, seed: int) -> BertSupernet:
    sizes = config(hidden_size=width)
    space = SearchSpace.of(Architecture.parse(architecture))
    return randomise(BertSupernet(space, sizes, 0), seed).eval()  # type: ignore[return-value]


def teacher(architecture: str = TEACHER, width: int = 24) -> Teacher:
    path = Architecture.parse(architecture)
    return Teacher(extract(plain(architecture, width, 7), path))  # type: ignore[arg-type]


def student_of(
    one: Teacher, section: DistillationSection = SECTION, architecture: str = STUDENT
) -> tuple[TaughtSupernet, StateDistillation, Architecture]:
    path, sizes = Architecture.parse(architecture), config()
    matching = StateMatching.of(section, config(architecture), one.config)
    assert matching is not None
    student = TaughtSupernet(SearchSpace.of(path), sizes, 0, matching)
    objective = StateDistillation(one, section.weight, section.temperature, matching)
    return randomise(student).eval(), objective, path  # type: ignore[return-value]


def layers_of(model: BertSupernet, ids: Tensor, tokens: Tensor) -> list[Tensor]:
    """Returns the embeddings and the output of each layer."""
    segments = Segments.of_ids(ids)
    states = [model.embeddings(tokens, segments)]
    for layer, (name,) in enumerate(model.space.layers):
        states.append(model.operator(layer, name)(states[-1], segments))
    return states


def relations_by_hand(student: Tensor, teacher: Tensor, ids: Tensor, heads: int) -> float:
    """Returns the divergence of all valid positions, one vector product at a time."""
    total = 0.0
    for row, position in (ids > 0).nonzero().tolist():
        seen = (ids[row] == ids[row, position]).nonzero().flatten().tolist()
        for head in range(heads):
            logs = []
            for vectors in (student, teacher):
                size = vectors.shape[-1] // heads
                part = vectors[row, :, head * size : (head + 1) * size].detach().double()
                products = [float(part[position] @ part[key]) / math.sqrt(size) for key in seen]
                logs.append(torch.tensor(products).log_softmax(-1))
            total += float((logs[1].exp() * (logs[1] - logs[0])).sum()) / heads
    return total


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
def test_relations_are_those_of_each_segment(ids: Tensor) -> None:
    torch.manual_seed(0)
    student, taught = torch.randn(2, 14, 8), torch.randn(2, 14, 12)
    found = relation_divergence(student, taught, Segments.of_ids(ids), 4)
    expected = relations_by_hand(student, taught, ids, 4)
    assert float(found[ids > 0].sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
def test_the_loss_is_its_formula(ids: Tensor) -> None:
    one = teacher()
    student, objective, path = student_of(one)
    given = batch(ids)
    found = objective(student, given, path)
    valid = ids > 0
    with torch.no_grad():
        own = layers_of(student, ids, given.input_ids)
        taught = layers_of(plain(TEACHER, 24, 7), ids, given.input_ids)
        hidden = 0.0
        for layer in (2, 4):
            mapped = student.hidden_maps[str(layer)](own[layer])
            hidden += float((mapped - taught[layer]).square().mean(-1)[valid].sum()) / 2
        relations = 0.0
        # The student's last attention is its third layer, and so is the teacher's.
        ours = student.operator(2, "mha2").query_key_value(own[2]).chunk(3, -1)
        theirs = one.model.model.encoder.layers[2].query_key_value(taught[2]).chunk(3, -1)
        for mine, other in zip(ours, theirs, strict=True):
            relations += relations_by_hand(mine, other, ids, 4)
    assert found.auxiliary is not None
    assert float(found.metrics["hidden_error"]) == pytest.approx(hidden, rel=1e-4)
    assert float(found.metrics["relation_error"]) == pytest.approx(relations, rel=1e-4)
    expected = 0.7 * hidden + 0.4 * relations
    assert float(found.auxiliary.detach()) == pytest.approx(expected, rel=1e-4)
    assert objective.num_auxiliary(given) == int(valid.sum())
    logits = DistilledMaskedLanguageModeling(one, 0.3, 2.0)(student, given, path)
    assert torch.equal(found.loss_sum, logits.loss_sum)
    rates = objective.rates({name: float(value) for name, value in found.metrics.items()})
    assert rates["hidden_error"] == pytest.approx(hidden / int(valid.sum()), rel=1e-4)


def test_a_copy_of_the_teacher_has_nothing_to_learn() -> None:
    one = teacher(STUDENT, width=16)
    section = dataclasses.replace(SECTION, hidden_points=4)
    student, objective, path = student_of(one, section)
    assert not student.hidden_maps
    student.load_state_dict(plain(STUDENT, 16, 7).state_dict())
    found = objective(student, batch(PACKED), path)
    assert found.auxiliary is not None
    assert abs(float(found.auxiliary.detach())) < 1e-5
    found.auxiliary.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-5 for p in student.parameters())


def test_the_student_alone_gets_a_gradient_and_padding_has_no_say() -> None:
    one = teacher()
    student, objective, path = student_of(one)
    given = batch(PADDED)
    found = objective(student, given, path)
    assert found.auxiliary is not None
    found.auxiliary.backward()
    assert all(p.grad is None for p in one.model.parameters())
    assert all(p.grad is not None and p.grad.any() for p in student.hidden_maps.parameters())
    assert student.operator(2, "mha2").query_key_value.weight.grad.abs().min() > 0
    ids = torch.where(PADDED > 0, given.input_ids, 3)
    other = objective(student, dataclasses.replace(given, input_ids=ids), path)
    torch.testing.assert_close(other.auxiliary, found.auxiliary)


def test_the_step_divides_the_states_by_their_own_count() -> None:
    student, objective, path = student_of(teacher())
    given = batch(PADDED)
    module = TrainingModule(student, objective, AlignmentSection()).eval()
    plan = StepPlan(0, path, None, 12, 23, num_auxiliary=23)
    total, task, _, logged = module(given, plan)
    loss = objective(student, given, path)
    torch.testing.assert_close(total, loss.loss_sum / 12 + loss.auxiliary / 23)
    torch.testing.assert_close(task, total.detach())
    assert logged[2] == 23


def test_dev_losses_compare_and_the_maps_stay_behind(tmp_path: Path) -> None:
    student, objective, path = student_of(teacher())
    given = batch(FULL)
    with torch.no_grad():
        found = objective(student, given, path)
        assert torch.equal(found.loss_sum, MaskedLanguageModeling()(student, given, path).loss_sum)
    assert found.auxiliary is None
    sums = {name: float(found.metrics[name]) for name in objective.logged}
    assert objective.rates(sums) == {}
    assert any("hidden_maps" in name for name in student.state_dict())
    save_supernet(tmp_path / "model", student, {})
    loaded, _ = load_supernet(tmp_path / "model")
    assert type(loaded) is BertSupernet
    exported = extract(student, path)
    assert not any("hidden_maps" in name for name in exported.state_dict())
    logits = exported(given.input_ids, segment_ids=given.segment_ids).logits
    again = extract(loaded, path)(given.input_ids, segment_ids=given.segment_ids).logits
    torch.testing.assert_close(logits, again)


def test_a_block_with_a_border_ahead_of_its_attention_is_compared() -> None:
    one = teacher()
    student, objective, path = student_of(one, architecture="ffnw8-mha2w16")
    found = objective(student, batch(PACKED), path)
    own = layers_of(student, PACKED, batch(PACKED).input_ids)
    border = student.operator(1, "mha2w16")
    read = border.transfer(own[1])
    ours = border.operator.query_key_value(read).chunk(3, -1)
    taught = layers_of(plain(TEACHER, 24, 7), PACKED, batch(PACKED).input_ids)
    theirs = one.model.model.encoder.layers[2].query_key_value(taught[2]).chunk(3, -1)
    relations = sum(
        relations_by_hand(mine, other, PACKED, 4) for mine, other in zip(ours, theirs, strict=True)
    )
    assert float(found.metrics["relation_error"]) == pytest.approx(relations, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "architecture", "match"),
    [
        ({"hidden_weight": 0.0}, "ffn-conv3", r"the student ffn-conv3 has no attention"),
        ({"attention_weight": 0.0, "hidden_points": 3}, "ffn-mha2", r"3, but the student has 2"),
        ({"relation_heads": 3}, STUDENT, r"3 do not divide the width 16 of the student's"),
        ({"relation_heads": 16}, STUDENT, r"16 do not divide the width 24 of the teacher's"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(
    changes: dict[str, float], architecture: str, match: str
) -> None:
    section = dataclasses.replace(SECTION, **changes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=match):
        StateMatching.of(section, config(architecture), teacher().config)
    off = dataclasses.replace(section, hidden_weight=0.0, attention_weight=0.0)
    assert StateMatching.of(off, config(architecture), teacher().config) is None


def test_the_configuration_says_what_is_missing() -> None:
    config = RetrainConfig(
        distillation=dataclasses.replace(SECTION, teacher=""),
        training=TrainingSection(zero_stage=3),
    )
    assert [problem.partition(":")[0] for problem in config.distillation.validate()] == [
        "hidden_weight", "attention_weight",
    ]  # fmt: skip
    assert any("ZeRO stage 3 has let go" in problem for problem in config.validate())


def test_a_retraining_without_attention_is_refused_before_it_starts(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    config = RetrainConfig(
        run=RunSection(root=str(tmp_path), name="tiny"),
        architecture="conv3-ffn",
        model=ModelSection(hidden_size=16, max_length=64),
        distillation=dataclasses.replace(SECTION, teacher=str(run / "teacher")),
    )
    with pytest.raises(UserError, match="conv3-ffn has no attention"):
        retrain.run(config)
    assert not (run / "retrain" / "checkpoints").exists()
