"""What the ranks of test_taught.py run: states of a teacher under ZeRO, and a cut retraining."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from bert_examples import config, randomise
from electra_worker import LENGTH, ROWS, batch
from path_sparse_setting import OPTIMIZER, Setting, training_section

from magicbert.bert.extraction import extract
from magicbert.bert.objectives.state_distillation import StateDistillation
from magicbert.bert.state_matching import StateMatching
from magicbert.bert.supernet import BertSupernet
from magicbert.bert.taught_supernet import TaughtSupernet
from magicbert.bert.teacher import Teacher
from magicbert.config.roots import RetrainConfig
from magicbert.config.sections import (
    AlignmentSection,
    DistillationSection,
    ModelSection,
    OptimizerSection,
    RunSection,
    TrainingSection,
)
from magicbert.data.batch import TokenBatch
from magicbert.records import file_digest
from magicbert.space import Architecture, SearchSpace
from magicbert.stages import retrain
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.path_sparse.groups import parameter_groups
from magicbert.training.starting.environment import join_process_group

STUDENT, TEACHER = Architecture.parse("ffn-mha2-conv3"), Architecture.parse("mha2-ffn-mha4")
STEPS = 3
SECTION = DistillationSection(
    teacher="there", hidden_weight=0.5, hidden_points=3, attention_weight=0.5, relation_heads=4
)


def build(section: DistillationSection) -> tuple[TaughtSupernet, StateDistillation]:
    sizes = config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    wide = config(hidden_size=24)
    encoder = randomise(BertSupernet(SearchSpace.of(TEACHER), wide, 0), 7)
    teacher = Teacher(extract(encoder, TEACHER))  # type: ignore[arg-type]
    matching = StateMatching.of(section, config(str(STUDENT)), teacher.config)
    assert matching is not None
    student = TaughtSupernet(SearchSpace.of(STUDENT), sizes, 3, matching)
    return student, StateDistillation(teacher, 0.5, 2.0, matching)


def plan_of(step: int, batches: list[TokenBatch]) -> StepPlan:
    predicted = sum(len(given.labels) for given in batches)
    tokens = sum(int((given.segment_ids > 0).sum()) for given in batches)
    assert tokens <= len(batches) * ROWS * LENGTH
    return StepPlan(step, STUDENT, None, predicted, tokens, num_auxiliary=tokens)


def trained_plainly(section: DistillationSection, num_ranks: int) -> TaughtSupernet:
    """Trains on all ranks' micro-batches with torch alone."""
    model, objective = build(section)
    module = TrainingModule(model, objective, AlignmentSection())
    adamw = torch.optim.AdamW(
        parameter_groups(model, OPTIMIZER.weight_decay), lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2), eps=OPTIMIZER.epsilon, foreach=False,
    )  # fmt: skip
    for step in range(STEPS):
        places = [(rank, number) for rank in range(num_ranks) for number in range(2)]
        batches = [batch(step, *place) for place in places]
        for given in batches:
            module(given, plan_of(step, batches))[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
    return model


def trained_at(
    stage: int, section: DistillationSection, rank: int, num_ranks: int
) -> TaughtSupernet:
    """Trains on this rank with the engine."""
    setting = Setting(stage=stage, micro_batches=2, clip_norm=0.5)  # type: ignore[arg-type]
    model, objective = build(section)
    engine = TrainingEngine(
        TrainingModule(model, objective, AlignmentSection()),
        training_section(setting, num_ranks, ROWS), setting.optimizer, num_ranks=num_ranks,
    )  # fmt: skip
    for step in range(STEPS):
        places = [(other, number) for other in range(num_ranks) for number in range(2)]
        plan = plan_of(step, [batch(step, *place) for place in places])
        engine.begin_step(STUDENT, OPTIMIZER.learning_rate)
        for number in range(2):
            given = batch(step, rank, number).to(engine.device)
            engine.backward(engine.forward(given, plan, is_last=number == 1)[0])
        engine.step()
    engine.restore_masters()
    return model


def check_stages(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Returns how far every stage is from plain torch; relations are not offered in stage 3."""
    found = {}
    for stage in range(4):
        section = dataclasses.replace(SECTION, attention_weight=0.0) if stage == 3 else SECTION
        expected = trained_plainly(section, num_ranks).state_dict()
        state = trained_at(stage, section, rank, num_ranks).state_dict()
        start = build(section)[0].state_dict()
        maps = [name for name in start if name.startswith("hidden_maps.")]
        found[str(stage)] = {
            "error": max(
                float((state[name].cpu() - value).abs().max())
                for name, value in expected.items()
                if "query_key_value.bias" not in name  # its key part has nearly no gradient
            ),
            "maps moved": min(float((state[n].cpu() - start[n]).abs().max()) for n in maps),
        }
    return found


def check(rank: int, num_ranks: int, folder: Path, arguments: str) -> Any:
    """Runs both checks: starting a process costs more than either."""
    join_process_group()
    return {
        "stages": check_stages(rank, num_ranks, folder, arguments),
        "digests": retrain_in_two_starts(rank, num_ranks, folder, arguments),
    }


def check_stages_of_ranks(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Returns what `check_stages` finds on ranks that train together."""
    join_process_group()
    return check_stages(rank, num_ranks, folder, arguments)


def retrain_in_two_starts(rank: int, num_ranks: int, folder: Path, arguments: str) -> Any:
    """Retrains with a teacher in one go, and stopped after the first step and gone on with."""
    run = Path(arguments)
    digests = {}
    for label, minutes in (("whole", 0.0), ("cut", 1e-9), ("cut", 0.0)):
        try:
            retrain.run(retraining(run, label, num_ranks, minutes))
        except SystemExit:
            assert minutes
        weights = run / f"retrain-{label}" / "model" / "model.safetensors"
        digests[f"{label} {minutes:g}"] = file_digest(weights) if weights.is_file() else ""
    return digests


def retraining(run: Path, label: str, num_ranks: int, minutes: float) -> RetrainConfig:
    return RetrainConfig(
        run=RunSection(root=str(run.parent), name=run.name, label=label),
        architecture="ffn-mha2-conv3",
        model=ModelSection(hidden_size=16, max_length=64),
        distillation=dataclasses.replace(SECTION, teacher=str(run / "teacher")),
        optimizer=OptimizerSection(learning_rate=1e-3, warmup_steps=1),
        training=TrainingSection(
            num_steps=3, rows_per_step=4 * num_ranks, rows_per_micro_batch=2, precision="fp32",
            zero_stage=1, log_every=1, evaluate_every=3, num_eval_batches=1, checkpoint_every=100,
            max_minutes=minutes,
        ),
    )  # fmt: skip
