"""What a teacher adds to the plan of a retraining, against real forwards and real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_probe import allocated_bytes, token_batch
from tiny_compression import TEACHER, write_run
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from magicbert import cli
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.objectives.building import distilled_objective
from magicbert.bert.saving import load_supernet
from magicbert.bert.supernet import BertSupernet, supernet_config
from magicbert.bert.taught_supernet import TaughtSupernet
from magicbert.bert.teacher import Teacher
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import PretrainConfig, RetrainConfig
from magicbert.config.sections import (
    AlignmentSection,
    DistillationSection,
    MaskingSection,
    ModelSection,
    RunSection,
    TrainingSection,
)
from magicbert.errors import UserError
from magicbert.stages.plan import Planner
from magicbert.training.module import StepPlan, TrainingModule

VOCABULARY, LENGTH, ROWS = 400, 48, 6
NUM_PREDICTED = 36
# A border of widths stands ahead of the attention that is compared.
STUDENT = "ffn32w32-conv3w32-mha2w64"
OPTIONS = PlanSection(
    vocab_size=VOCABULARY, length=LENGTH, device="cpu", num_ranks=1, teacher_layers=2,
    teacher_width=128,
)  # fmt: skip
PLAIN = DistillationSection(teacher="later")
STATES = DistillationSection(
    teacher="later", hidden_weight=1.0, hidden_points=3, attention_weight=1.0, relation_heads=4
)


def configuration(
    distillation: DistillationSection, precision: str = "fp32", architecture: str = STUDENT
) -> RetrainConfig:
    return RetrainConfig(
        run=RunSection(root="nowhere"),
        architecture=architecture,
        model=ModelSection(hidden_size=64, max_length=LENGTH, dropout=0.0, attention_dropout=0.0),
        masking=MaskingSection(probability=NUM_PREDICTED / (ROWS * LENGTH)),
        distillation=distillation,
        training=TrainingSection(
            precision=precision, rows_per_micro_batch=ROWS, rows_per_step=ROWS, num_steps=10
        ),
    )


def real(planner: Planner, dtype: torch.dtype = torch.float32) -> tuple[TrainingModule, Teacher]:
    """Returns what is trained, with memory, and its teacher."""
    planned, config = planner.distillation, planner.config
    assert planned is not None
    teacher = Teacher(MagicBertForMaskedLM(planned.teacher.config))
    sizes = supernet_config(planner.model, VOCABULARY, 0, backend="torch")
    student = (
        TaughtSupernet(planner.space, sizes, 0, planned.matching)
        if planned.matching
        else BertSupernet(planner.space, sizes, 0)
    ).to(dtype)
    objective = distilled_objective(config.distillation, teacher, planned.matching)
    return TrainingModule(student, objective, AlignmentSection()).train(), teacher


def step_of(planner: Planner) -> tuple[Any, StepPlan]:
    (path,) = planner.space.enumerate()
    batch = token_batch(ROWS, LENGTH, VOCABULARY, NUM_PREDICTED)
    return batch, StepPlan(0, path, None, NUM_PREDICTED, ROWS * LENGTH)


@pytest.mark.parametrize(
    ("section", "precision"), [(PLAIN, "bf16"), (STATES, "fp32"), (STATES, "bf16")],
    ids=["logits-bf16", "states-fp32", "states-bf16"],
)  # fmt: skip
def test_memory_is_that_of_real_models_and_a_real_step(section: Any, precision: str) -> None:
    planner = Planner("retrain", configuration(section, precision), OPTIONS)
    plan = planner.plan()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    module, teacher = real(planner, dtype)
    assert plan.memory.teacher == sum(w.nbytes for w in teacher.model.parameters())
    assert plan.parameters == sum(weight.numel() for weight in module.parameters())
    assert plan.checkpoint.num_bytes == 12 * plan.parameters
    batch, step = step_of(planner)
    left, most, _ = allocated_bytes(lambda: module(batch, step))
    memory = plan.memory
    assert memory.activations == pytest.approx(left, rel=0.02)
    assert memory.activations + memory.temporaries == pytest.approx(most, rel=0.02)

    def whole_step() -> None:
        module(batch, step)[0].backward()

    # The backward of all that holds less than the forward's most.
    assert allocated_bytes(whole_step)[1] == pytest.approx(most, rel=0.02)


@pytest.mark.parametrize("section", [PLAIN, STATES], ids=["logits", "states"])
def test_work_is_that_of_a_real_forward(section: DistillationSection) -> None:
    chain = STUDENT.replace("conv3", "ffn32")  # whose products a counter can count
    planner = Planner("retrain", configuration(section, architecture=chain), OPTIONS)
    plan = planner.plan()
    module, _ = real(planner)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*step_of(planner))
    own = plan.path_flops.mean * ROWS
    assert own + plan.step_flops.teacher == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert plan.step_flops.mean == pytest.approx(3 * own + plan.step_flops.teacher)
    assert plan.run_flops == pytest.approx(10 * plan.step_flops.mean)


def test_the_teacher_of_a_folder_is_counted(tmp_path: Path, capsys: Any) -> None:
    run = write_run(tmp_path)
    supernet, _ = load_supernet(run / "teacher")
    words = ["retrain", "--run.root", str(run.parent), "--run.name", run.name]
    words += ["--architecture", "mha2-ffn", "--model.hidden_size", "16", "--plan=json"]
    words += ["--plan.num_ranks", "2", "--training.rows_per_step", "64"]
    cli.main(words)
    alone = json.loads(capsys.readouterr().out)
    teacher = ["--distillation.teacher", str(run / "teacher"), "--distillation.hidden_weight", "1"]
    cli.main([*words, *teacher, "--distillation.hidden_points", "2"])
    taught = json.loads(capsys.readouterr().out)
    assert taught["memory"]["teacher"] == 4 * sum(w.numel() for w in supernet.parameters())
    assert alone["memory"]["teacher"] == alone["step_flops"]["teacher"] == 0
    # A map from 16 to the 32 of the teacher, with its bias, at each of the two points.
    assert taught["parameters"] == alone["parameters"] + 2 * 17 * 32
    assert taught["step_flops"]["teacher"] > 0
    assert len(TEACHER) == 4
    cli.main([*words[:-5], *teacher[:2], "--plan"])
    shown = capsys.readouterr().out
    assert "its weights, fp32, whole on every rank" in shown
    assert "of them the teacher's forward" in shown
    cli.main([*words[:-5], "--plan"])
    assert "teacher" not in capsys.readouterr().out


def test_a_teacher_that_is_not_there_is_told() -> None:
    without = PlanSection(vocab_size=VOCABULARY, length=LENGTH)
    with pytest.raises(UserError, match=r"distillation\.teacher: later is not there; plan without"):
        Planner("retrain", configuration(PLAIN), without).plan()
    nobody = configuration(DistillationSection())
    for verb, config in (("retrain", nobody), ("pretrain", PretrainConfig(run=nobody.run))):
        with pytest.raises(UserError, match=r"plan\.teacher_layers: 2, but nothing has a teacher"):
            Planner(verb, config, OPTIONS).plan()
