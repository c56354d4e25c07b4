"""What the ranks of test_planning_memory.py run: steps of a real engine, and what they allocate."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

from memory_probe import allocated_bytes, held_bytes, token_batch

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import build_supernet
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import PretrainConfig
from magicbert.config.sections import ModelSection, RunSection, SpaceSection, TrainingSection
from magicbert.space import Architecture, SearchSpace
from magicbert.stages.plan import Planner
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.starting.environment import join_process_group

VOCABULARY, LENGTH = 300, 32
NUM_MEASURED = 12
LARGEST = Architecture(("ffn",) * 3)


def configuration(
    stage: int, precision: str, rows: int, accumulated: int, offload: bool, num_ranks: int
) -> PretrainConfig:
    return PretrainConfig(
        run=RunSection(root="nowhere"),
        space=SpaceSection(preset="custom", num_layers=3, candidates=("ffn", "conv3")),
        model=ModelSection(hidden_size=64, max_length=LENGTH, dropout=0.0, attention_dropout=0.0),
        training=TrainingSection(
            zero_stage=stage,
            precision=precision,
            rows_per_step=rows * accumulated * num_ranks,
            rows_per_micro_batch=rows,
            offload_optimizer=offload,
        ),
    )


def measured(config: PretrainConfig, num_ranks: int, accumulated: int) -> dict[str, int]:
    """Trains every operator once, then measures a step on the largest path."""
    before = held_bytes()
    space = SearchSpace.uniform(3, config.space.candidates)
    supernet = build_supernet(space, config.model, VOCABULARY, 0, seed=0)
    module = TrainingModule(supernet, MaskedLanguageModeling(), config.alignment)
    engine = TrainingEngine(module, config.training, config.optimizer, num_ranks=num_ranks)
    rows = config.training.rows_per_micro_batch
    num_predicted = round(rows * LENGTH * config.masking.probability)
    batch = token_batch(rows, LENGTH, VOCABULARY, num_predicted)

    def step(path: Architecture) -> None:
        engine.begin_step(path, 1e-3)
        plan = StepPlan(0, path, None, num_predicted, rows * LENGTH)
        for number in range(accumulated):
            loss, *_ = engine.forward(batch, plan, is_last=number == accumulated - 1)
            engine.backward(loss)
        engine.step()

    for name in config.space.candidates:
        step(Architecture((name,) * space.num_layers))
    batches = held_bytes_of(batch)
    steady = held_bytes() - before - batches
    # gloo's threads let go of a message's buffers when they come to it, late on a busy machine: the
    # least of several steps.
    peak = min(allocated_bytes(lambda: step(LARGEST))[1] for _ in range(NUM_MEASURED))
    return {"steady": steady, "peak": steady + peak}


def held_bytes_of(batch: Any) -> int:
    """Returns the bytes of a batch, which is the data loader's."""
    tensors = (batch.input_ids, batch.segment_ids, batch.predicted_positions, batch.labels)
    return sum(tensor.nbytes for tensor in tensors)


def compares(rank: int, num_ranks: int, folder: Path, cases: list[Any]) -> list[Any]:
    """Returns, case by case, what the plan says and what this rank measures."""
    join_process_group()
    found = []
    for case in cases:
        config = configuration(*case, num_ranks)
        options = PlanSection(num_ranks=num_ranks, device="cpu", vocab_size=VOCABULARY)
        memory = Planner("pretrain", config, options).memory()
        gc.collect()
        found.append([dataclasses.asdict(memory), measured(config, num_ranks, case[3])])
    return found
