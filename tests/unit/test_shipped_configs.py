"""Every configuration that is shipped: read, checked against its neighbours, and run on paper."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from magicbert.bert.block_supernet import BlockRegression, BlockSupernet
from magicbert.bert.cost import bert_cost_model
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.objectives.building import build_objective
from magicbert.bert.rehearsal import rehearsal_batch
from magicbert.bert.spaces import resolve_space
from magicbert.bert.supernet import supernet_config
from magicbert.bert.taught_batches import BlockBatch
from magicbert.cli import VERBS
from magicbert.compression.pool_sampling import PoolSampler
from magicbert.config.plan_section import PlanSection
from magicbert.config.reading import load_config
from magicbert.config.roots import PrepareConfig, PretrainConfig
from magicbert.finetune.task_data import find_all_tasks
from magicbert.space import Limits
from magicbert.space.feasible import FeasiblePaths
from magicbert.space.randomness import keyed_generator
from magicbert.stages.plan import Planner
from magicbert.stages.plan_blocks import BlocksPlanner
from magicbert.stages.plan_compress import plan_of
from magicbert.supernet.sampling import build_sampler
from magicbert.training.module import StepPlan, TrainingModule

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
LENGTH = 32


def verb_of(file: Path) -> str:
    """Returns the verb that a file is for: ``retrain`` of ``retrain-best.yaml``."""
    return file.stem.partition("-")[0]


def files_of(*verbs: str) -> list[Any]:
    found = [file for file in FILES if verb_of(file) in verbs]
    return [pytest.param(file, id=str(file.relative_to(ROOT / "configs"))) for file in found]


def read(file: Path) -> Any:
    return load_config(VERBS[verb_of(file)].config, str(file), {})


def trained_space(folder: Path) -> tuple[Any, Any]:
    """Returns the supernet's configuration and space that a folder's search and retraining use."""
    files = sorted(folder.glob("pretrain*.yaml"), key=lambda file: len(file.stem))
    config = load_config(PretrainConfig, str(files[0]) if files else None, {})
    return config, resolve_space(config.space, config.model.hidden_size)


def vocabulary_of(folder: Path) -> int:
    """Returns the size that a folder's tokenizer will have."""
    file = folder / "prepare.yaml"
    size: int = load_config(
        PrepareConfig, str(file) if file.exists() else None, {}
    ).tokenizer.vocab_size
    return size


@pytest.mark.parametrize("file", files_of(*VERBS))
def test_it_is_read_by_its_verb(file):
    read(file)


def test_every_file_is_named_after_a_verb():
    assert {verb_of(file) for file in FILES} <= set(VERBS)


@pytest.mark.parametrize("file", files_of("pretrain", "retrain"))
def test_two_steps_run_on_tensors_without_memory(file):
    """At full width and depth, on the paths that the configuration's own sampler draws."""
    config = read(file)
    if verb_of(file) == "retrain":
        config = with_architecture(file, config)
    is_taught = verb_of(file) == "retrain" and config.distillation.teacher
    teacher = {"teacher_layers": 12, "teacher_width": 768} if is_taught else {}
    options = PlanSection(vocab_size=vocabulary_of(file.parent), length=LENGTH, **teacher)
    planner = Planner(verb_of(file), config, options)
    planner.check()
    supernet, taught = planner.supernet, planner.distillation
    objective = taught.objective() if taught else build_objective(config.objective)
    module = TrainingModule(supernet, objective, planner.alignment).train()
    optimizer = torch.optim.AdamW(supernet.parameters())
    batch = rehearsal_batch(2, LENGTH, config.masking.probability)
    previous = None
    for step in range(2):
        path = next_path(config, planner.space, step, previous)
        anchor = path if planner.alignment.enabled else None
        loss, *_ = module(batch, StepPlan(step, path, anchor, len(batch.labels), 2 * LENGTH))
        assert loss.shape == ()
        loss.backward()
        trained = [name for name, weight in supernet.named_parameters() if weight.grad is not None]
        assert trained
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        previous = path


def with_architecture(file: Path, config: Any) -> Any:
    """Returns a retraining of an architecture that a search may find, or blocks be put into."""
    if config.architecture == "best" or config.architecture.startswith(("rank:", "random:")):
        _, space = trained_space(file.parent)
        return dataclasses.replace(config, architecture=str(next(iter(space.enumerate()))))
    if ":" in config.architecture:
        sizes = dataclasses.replace(config.model, hidden_size=128)
        return dataclasses.replace(config, architecture="mha2-ffn-conv5-ffn", model=sizes)
    return config


def next_path(config: Any, space: Any, step: int, previous: Any) -> Any:
    if not isinstance(config, PretrainConfig):
        return next(iter(space.enumerate()))
    return build_sampler(config.sampling, space, config.training.seed).next(step, previous)


@pytest.mark.parametrize("file", files_of("compress"))
def test_compression_runs_on_tensors_without_memory(file):
    """A plan of each, and two steps of a block of full width and depth against BERT-base."""
    config = read(file)
    teacher = {"teacher_layers": 12, "teacher_width": 768}
    options = PlanSection(vocab_size=vocabulary_of(file.parent), length=LENGTH, **teacher)
    assert plan_of(config, options).as_text()
    if config.target == "select":
        return
    planner = BlocksPlanner(config, options)
    sizes, student = planner.sizes_of(1), planner.student
    with torch.device("meta"):
        block = BlockSupernet(planner.space, student, config.blocks.head_size, sizes, "shipped")
    assert sum(weight.numel() for weight in block.parameters()) == planner.counts[0]
    module = TrainingModule(block, BlockRegression(), config.alignment).train()
    states = torch.empty(2, LENGTH, 768, device="meta")
    batch = BlockBatch(states, states, Segments.full(LENGTH, states.device), 2 * LENGTH)
    sampler = PoolSampler(planner.candidates.pool, config.sampling, 0, "block-1-path")
    previous = None
    for step in range(2):
        path = sampler.next(step, previous)
        anchor = path if config.alignment.enabled else None
        loss, *_ = module(batch, StepPlan(step, path, anchor, 2 * LENGTH, 2 * LENGTH))
        loss.backward()
        assert loss.shape == ()
        previous = path


@pytest.mark.parametrize("file", files_of("search"))
def test_limits_leave_something_to_find(file):
    config = read(file)
    pretrain, space = trained_space(file.parent)
    sizes = supernet_config(pretrain.model, vocabulary_of(file.parent), 0)
    names = {name for layer in space.layers for name in layer}
    costs = bert_cost_model(sizes, names, pretrain.model.max_length)
    section = config.search
    limits = Limits(section.max_parameters, section.min_parameters, section.max_flops)
    drawn = FeasiblePaths(space, costs, limits).draw(3, keyed_generator(0, "shipped", 0))
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("file", files_of("finetune"))
def test_tasks_are_known_and_seeds_distinct(file):
    section = read(file).finetune
    assert find_all_tasks(section.tasks, mnli_first=section.mnli_warm_start)
    assert len(set(section.seeds)) == len(section.seeds)
