"""A teacher beside the labels: the loss, its gradient, and a retraining with one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from bert_examples import FULL, PADDED, batch, randomise, supernet
from tiny_compression import write_run

from magicbert.bert.extraction import extract
from magicbert.bert.objectives.distillation import DistilledMaskedLanguageModeling, divergence_sum
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.teacher import Teacher, load_teacher
from magicbert.config.roots import RetrainConfig
from magicbert.config.sections import DistillationSection, ModelSection, RunSection
from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.stages import retrain

STUDENT = Architecture.parse("ffn-conv3-mha2-ffn24")


def teacher(seed: int = 7) -> Teacher:
    path = Architecture.parse("mha2-ffn-conv3-mha4")
    return Teacher(extract(randomise(supernet(), seed), path))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("ids", [FULL, PADDED], ids=["full", "padded"])
def test_the_loss_is_its_formula(ids: torch.Tensor, temperature: float) -> None:
    student, one, given = randomise(supernet()).eval(), teacher(), batch(ids)
    objective = DistilledMaskedLanguageModeling(one, 0.3, temperature)
    found = objective(student, given, STUDENT)
    hidden = student(given, STUDENT).hidden.flatten(0, 1)[given.predicted_positions]
    logits = student.predict(hidden)
    taught = one.model(given.input_ids, segment_ids=ids).logits.flatten(0, 1)
    target = (taught[given.predicted_positions] / temperature).softmax(-1)
    soft = (target * (target.log() - (logits / temperature).log_softmax(-1))).sum()
    hard = F.cross_entropy(logits, given.labels, reduction="sum")
    torch.testing.assert_close(found.loss_sum, 0.7 * hard + 0.3 * temperature**2 * soft)
    assert found.count == len(given.labels)
    assert int(found.metrics["correct"]) == int((logits.argmax(-1) == given.labels).sum())


def test_a_student_that_agrees_has_nothing_to_learn() -> None:
    logits = torch.randn(5, 9, dtype=torch.double, requires_grad=True)
    loss = divergence_sum(logits, logits.detach(), 2.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, torch.zeros_like(loss))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_the_teacher_gets_no_gradient_and_dev_losses_compare() -> None:
    student, one, given = randomise(supernet()), teacher(), batch(FULL)
    objective = DistilledMaskedLanguageModeling(one, 1.0, 1.0)
    objective(student, given, STUDENT).loss_sum.backward()
    assert all(p.grad is None for p in one.model.parameters())
    assert student.decoder_bias.grad is not None
    student.eval()
    with torch.no_grad():
        plain = MaskedLanguageModeling()(student, given, STUDENT).loss_sum
        assert torch.equal(objective(student, given, STUDENT).loss_sum, plain)


def test_a_teacher_of_other_tokens_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    tokenizer = run / "prepare" / "tokenizer"
    with pytest.raises(UserError, match="reads other tokens"):
        load_teacher(run / "teacher", tokenizer, digest="0" * 64, length=32)
    config = RetrainConfig(
        run=RunSection(root=str(tmp_path), name="tiny"),
        architecture="mha2-ffn",
        model=ModelSection(hidden_size=16),
        distillation=DistillationSection(teacher=str(tmp_path)),
    )
    with pytest.raises(UserError, match="no model of magicbert"):
        retrain.run(config)
    assert not (run / "retrain").exists() or not any((run / "retrain").glob("*.yaml"))
