"""One training run on one rank: model, engine, checkpoints, trail and loop put together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from magicbert.config.reading import to_tree
from magicbert.config.roots import batch_problems
from magicbert.config.sections import LaunchSection, TrainingSection
from magicbert.errors import UserError
from magicbert.supernet.alignment import alignment_backend
from magicbert.supernet.supernet import Supernet
from magicbert.trail import Trail
from magicbert.training.checkpoints import CheckpointStore, Origin, RunIdentity
from magicbert.training.compiling import check_compiler, compiled_operators
from magicbert.training.cuda_graphs import CudaRecorder, check_graphs, recorded_operators
from magicbert.training.engine import TrainingEngine
from magicbert.training.loop import TrainingLoop
from magicbert.training.module import TrainingModule
from magicbert.training.parts import Outcome, Parts, Sections
from magicbert.training.ranks import Ranks
from magicbert.training.reporting.tracking import Tracker
from magicbert.training.resuming import Resumer
from magicbert.training.starting.host_memory import keep_freed_memory
from magicbert.training.starting.run_facts import agree_on_run
from magicbert.training.watching.heartbeat import PULSE
from magicbert.training.watching.interruption import listening

LOGGER = logging.getLogger("magicbert")


def train(
    config: Any,
    sections: Sections,
    folder: Path,
    supernet: Supernet,
    parts: Parts,
    facts: Mapping[str, Any],
    ranks: Ranks,
    headline: str = "",
) -> Outcome:
    """Trains, or goes on training, until the last step or a reason to stop.

    Args:
        config: the verb's resolved configuration, for the trail and the checkpoints.
        sections: its parts that the loop reads.
        folder: the stage's folder.
        supernet: the model; holds the fp32 weights of the masters when this returns finished.
        parts: losses, batches and paths.
        facts: what else must not change between two starts of the run.
        ranks: all ranks.
        headline: a line about what is trained, for log and terminal.

    Raises:
        UserError: a checkpoint there is of another run, or the batch does not divide.
    """
    check_batch(sections.training, ranks.num_ranks)
    device = torch.device(engine_device())
    if device.type == "cpu":
        keep_freed_memory()
    backend = alignment_backend(sections.training.backend, device)
    runner = operator_runner(sections.training, supernet, device)
    module = TrainingModule(supernet, parts.objective, sections.alignment, backend)
    engine = TrainingEngine(
        module, sections.training, sections.optimizer, num_ranks=ranks.num_ranks
    )
    identity = RunIdentity.of(to_tree(config), {**facts, "space": supernet.space.to_json()})
    run_facts = agree_on_run(ranks, identity.values)
    origin = Origin(sections.training.zero_stage, identity.config_digest, identity.data_digest)
    keep = sections.training.keep_checkpoints
    store = CheckpointStore(folder / "checkpoints", ranks, keep, origin)
    resumer = Resumer(store, identity, engine, parts.anchors)
    with runner, listening() as interruption:
        state = resumer.load()
        with Trail(folder, config, is_writer=ranks.is_first) as trail:
            LOGGER.info("%s", headline)
            loop = TrainingLoop(parts, sections, engine, ranks, resumer, run_facts)
            with Tracker(trail, sections.training.num_steps, state.step) as tracker:
                outcome = loop.run(state, tracker, interruption)
        PULSE.enter("finish")
        if outcome.ending == "interrupted":
            interruption.settle()
    if outcome.ending == "finished":
        engine.restore_masters()
    return outcome


def operator_runner(
    training: TrainingSection, supernet: Supernet, device: torch.device
) -> AbstractContextManager[None]:
    """Returns the block inside which the operators run as the configuration asks for.

    Raises:
        UserError: this machine cannot run them so.
    """
    if training.cuda_graphs:
        check_graphs(device)
        return recorded_operators(supernet, lambda _: CudaRecorder(device))
    if training.compile:
        check_compiler(device)
        return compiled_operators(supernet)
    return nullcontext()


def check_batch(training: TrainingSection, num_ranks: int) -> None:
    """Refuses a batch that these ranks cannot share out, before DeepSpeed does so less kindly.

    Raises:
        UserError: says what does not divide.
    """
    for problem in batch_problems(LaunchSection(num_ranks=num_ranks), training):
        raise UserError(problem)


def engine_device() -> str:
    """Returns the device that DeepSpeed puts the model on."""
    from deepspeed.accelerator import get_accelerator

    return str(get_accelerator().current_device_name())
