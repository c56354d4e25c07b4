"""What pretraining a supernet and retraining one architecture share: data, model, result."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from magicbert.bert.cost import bert_cost_model, num_parameters
from magicbert.bert.inheritance import Inheritance
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.objectives.building import (
    build_objective,
    distilled_objective,
    supernet_for,
)
from magicbert.bert.saving import save_supernet
from magicbert.bert.spaces import outline_of
from magicbert.bert.state_matching import StateMatching
from magicbert.bert.supernet import EncoderSupernet, supernet_config
from magicbert.bert.taught_supernet import TaughtSupernet
from magicbert.bert.teacher import Teacher
from magicbert.config.reading import read_yaml, to_tree
from magicbert.config.roots import PretrainConfig, RetrainConfig, batch_problems
from magicbert.config.sections import (
    AlignmentSection,
    DistillationSection,
    LaunchSection,
    SamplingSection,
)
from magicbert.data.manifest import Manifest, read_manifest
from magicbert.data.source import TokenSource
from magicbert.data.statistics import masked_unigram_entropy
from magicbert.data.verification import verify_prepared
from magicbert.errors import ConfigError, UserError
from magicbert.interference.probe import InterferenceProbe
from magicbert.records import read_record, write_record
from magicbert.run_lock import alone_in, check_free
from magicbert.space import Architecture, SearchSpace
from magicbert.stages.run_teacher import open_run_teacher
from magicbert.supernet.anchor import build_anchor_policy
from magicbert.supernet.objective import Objective
from magicbert.supernet.sampling import build_sampler
from magicbert.trail import run_folder
from magicbert.training.checkpoints import RunIdentity
from magicbert.training.checkpoints.identity import flatten
from magicbert.training.parts import Outcome, Parts, Sections
from magicbert.training.ranks import Ranks
from magicbert.training.starting.environment import join_process_group
from magicbert.training.starting.launching import run_on_ranks
from magicbert.training.watching.exit_codes import EXIT_INTERRUPTED

LOGGER = logging.getLogger("magicbert")
# The entropy of few targets comes out too low; this many batches hold some 100,000.
ENTROPY_BATCHES = 500
RESULT = "result.json"
RESULT_SCHEMA = "magicbert/training-result/1"


@dataclass(frozen=True)
class EncoderTraining:
    """A stage that trains a BERT supernet; a space of one architecture is a plain model.

    Attributes:
        verb: ``pretrain`` or ``retrain``.
        config: its configuration.
        folder: where the stage writes.
        product: folder of the trained weights in it, ``supernet`` or ``model``.
        space: the paths that are trained.
        sampling: which path is trained when.
        alignment: MAGIC-A.
        inherited: initial weights of its one architecture; ``None`` = new weights.
        distillation: the teacher beside the labels; ``None`` = labels alone.
    """

    verb: str
    config: PretrainConfig | RetrainConfig
    folder: Path
    product: str
    space: SearchSpace
    sampling: SamplingSection
    alignment: AlignmentSection
    inherited: Inheritance | None = None
    distillation: DistillationSection | None = None

    def run(self) -> None:
        """Trains on all ranks, goes on where an earlier start stopped, or says it is done."""
        if self.is_finished():
            LOGGER.info(
                "%s is finished already: %s. Nothing to do; to train anew, delete that folder or "
                "give another run.label.", self.verb, self.folder,
            )  # fmt: skip
            return
        check_free(self.folder)
        run_on_ranks(self.verb, self.config, self.folder, self.check, self.train)

    def is_finished(self) -> bool:
        """Whether an earlier start reached the last step of this very configuration.

        Raises:
            UserError: it was another configuration.
        """
        if not (self.folder / RESULT).is_file():
            return False
        result = read_record(self.folder / RESULT, RESULT_SCHEMA)
        if not result["finished"]:
            return False
        former = dict(flatten(read_yaml(self.folder / "config.yaml")))
        RunIdentity.of(to_tree(self.config), {}).check(former, str(self.folder))
        return bool(result["steps"] >= self.config.training.num_steps)

    @cached_property
    def manifest(self) -> Manifest:
        """The prepared data of the run."""
        return read_manifest(run_folder(self.config.run) / "prepare")

    def check(self, num_ranks: int) -> None:
        """Finds whatever keeps training from starting, before a model is built.

        Raises:
            UserError: data, batch sizes and space do not fit together.
        """
        training, model = self.config.training, self.config.model
        problems = list(batch_problems(LaunchSection(num_ranks=num_ranks), training))
        if self.manifest.length > model.max_length:
            problems.append(
                f"model.max_length: {model.max_length} is below the {self.manifest.length} tokens "
                "of a prepared row"
            )
        problems += self.inheritance_problems()
        if problems:
            raise ConfigError(self.verb, problems)
        build_sampler(self.sampling, self.space, training.seed)
        self.source()
        _ = self.matching  # a mistake in it, or in the teacher, ends the start

    def inheritance_problems(self) -> Iterator[str]:
        """Yields the sizes in which what is inherited differs from the model."""
        if self.inherited is None:
            return
        there, model = self.inherited.config, self.config.model
        wanted = {
            "model.hidden_size": (model.hidden_size, there.hidden_size),
            "model.embedding_size": (model.embedding_size, there.embedding_size or 0),
            "model.max_length": (model.max_length, there.max_position_embeddings),
            "tokens of the prepared data": (self.manifest.vocab_size, there.vocab_size),
        }
        for name, (here, inherited) in wanted.items():
            if here != inherited:
                yield f"{name}: {here}, but {self.inherited.source} has {inherited}"

    def source(self) -> TokenSource:
        """Opens the prepared data."""
        training = self.config.training
        return TokenSource(
            run_folder(self.config.run) / "prepare",
            self.config.masking,
            seed=training.seed,
            rows_per_step=training.rows_per_step,
            rows_per_micro_batch=training.rows_per_micro_batch,
        )

    @cached_property
    def teacher(self) -> Teacher | None:
        """The teacher beside the labels, if there is one.

        Raises:
            UserError: it cannot be loaded, or reads other tokens than the prepared data.
        """
        if self.distillation is None or not self.distillation.teacher:
            return None
        return open_run_teacher(self.distillation.teacher, self.config.run)

    @cached_property
    def matching(self) -> StateMatching | None:
        """Which states are compared with the teacher's, if any are.

        Raises:
            UserError: there is something wrong with the teacher, or the two do not fit.
        """
        if self.teacher is None:
            return None
        assert self.distillation is not None
        student = outline_of(self.space, self.sizes())
        return StateMatching.of(self.distillation, student, self.teacher.config)

    def objective(self) -> Objective:
        """Returns the task loss."""
        if self.teacher is None:
            return build_objective(self.config.objective)
        assert self.distillation is not None
        return distilled_objective(self.distillation, self.teacher, self.matching)

    def sizes(self) -> MagicBertConfig:
        """Returns the sizes of the model, without its architecture."""
        manifest = self.manifest
        sizes = supernet_config(
            self.config.model, manifest.vocab_size, manifest.pad_id, self.config.training.backend
        )
        if self.inherited is not None:
            sizes.layer_norm_eps = self.inherited.config.layer_norm_eps
        return sizes

    def build_model(self) -> EncoderSupernet:
        """Builds the model with its initial weights."""
        sizes, seed = self.sizes(), self.config.training.seed
        supernet = (
            supernet_for(self.config.objective, self.space, sizes, seed)
            if self.matching is None
            else TaughtSupernet(self.space, sizes, seed, self.matching)
        )
        if self.inherited is not None:
            new = self.inherited.fill(supernet)
            if new:
                LOGGER.info("%s has no %s for this objective: new", self.inherited.source, new)
        return supernet

    def train(self) -> None:
        """Trains on this rank, which the environment describes; the first rank writes."""
        # DeepSpeed is imported here, once launching has chosen its accelerator.
        from magicbert.training.run import train

        ranks = join_process_group(self.config.launch)
        with ExitStack() as stack:
            ranks.raise_together(self.enter(stack, ranks))
            ending = self.train_alone(ranks, train)
            # The launcher ends every rank when the first of them leaves with an exit code.
            ranks.barrier("end")
        if ending == "interrupted":
            sys.exit(EXIT_INTERRUPTED)

    def enter(self, stack: ExitStack, ranks: Ranks) -> str | None:
        """Keeps other processes out of the folder and checks the data; returns what is wrong."""
        try:
            if ranks.is_first:
                stack.enter_context(alone_in(self.folder))
            # Each host has its own view of the disk; one of its ranks looks.
            if os.environ.get("LOCAL_RANK", "0") == "0" and self.config.run.verify == "full":
                verify_prepared(run_folder(self.config.run) / "prepare", self.manifest)
        except UserError as error:
            return str(error)
        return None

    def train_alone(self, ranks: Ranks, train: Callable[..., Outcome]) -> str:
        """Trains and writes the result; returns how training ended."""
        training = self.config.training
        source, supernet = self.source(), self.build_model()
        objective = self.objective()
        parts = Parts(
            objective,
            source,
            build_sampler(self.sampling, self.space, training.seed),
            build_anchor_policy(self.alignment, self.space, training.seed)
            if self.alignment.enabled
            else None,
            InterferenceProbe(build_objective(self.config.objective)),
        )
        sections = Sections(training, self.config.optimizer, self.alignment)
        facts = {"data": self.manifest.digest}
        if self.teacher is not None:
            facts["teacher"] = self.teacher.digest
        headline = self.describe(supernet, ranks.num_ranks)
        outcome = train(self.config, sections, self.folder, supernet, parts, facts, ranks, headline)
        if ranks.is_first:
            self.write(outcome, supernet, source, parts)
        return outcome.ending

    def write(
        self, outcome: Outcome, supernet: EncoderSupernet, source: TokenSource, parts: Parts
    ) -> None:
        """Writes the weights, if all steps are made, and the result."""
        state, valid = outcome.state, outcome.valid
        anchor = parts.anchors.anchor if parts.anchors else None
        result = {
            "steps": state.step,
            "tokens": state.num_tokens,
            "valid_loss": valid.loss if valid else None,
            "valid_accuracy": valid.accuracy if valid else None,
            "objective": self.config.objective.name,
            "unigram_entropy": self.unigram_entropy(source) if valid else None,
            "seconds": round(state.total_seconds, 3),
            **self.cost(supernet),
            "anchor": None if anchor is None else str(anchor),
            "finished": valid is not None,
        }
        if valid is not None:
            details = {
                "verb": self.verb,
                "steps": state.step,
                "tokenizer_digest": self.manifest.tokenizer_digest,
                "data_digest": self.manifest.digest,
                "valid_loss": valid.loss,
                "anchor": result["anchor"],
            }
            save_supernet(self.folder / self.product, supernet, details)
        write_record(self.folder / RESULT, RESULT_SCHEMA, result)
        self.say_goodbye(outcome.ending, state.step)

    def unigram_entropy(self, source: TokenSource) -> float | None:
        """Returns the loss of guessing by frequency; ``None`` where no tokens are predicted."""
        is_mlm = self.config.objective.name == "mlm"
        return masked_unigram_entropy(source, ENTROPY_BATCHES) if is_mlm else None

    def say_goodbye(self, ending: str, step: int) -> None:
        """Says how the start ended and how to go on."""
        if ending == "finished":
            LOGGER.info("%s finished: %s", self.verb, self.folder / self.product)
            return
        LOGGER.info(
            "%s stopped (%s) after step %d of %d, with a checkpoint; "
            "give the same command again to go on.",
            self.verb, ending, step, self.config.training.num_steps,
        )  # fmt: skip

    @property
    def architecture(self) -> Architecture | None:
        """The only path; ``None`` for a supernet."""
        return next(self.space.enumerate()) if self.space.count() == 1 else None

    def cost(self, supernet: EncoderSupernet) -> dict[str, Any]:
        """Returns the architecture with its parameters and FLOPs, or the supernet's size."""
        path = self.architecture
        if path is None:
            parameters = num_parameters(supernet)
            return {"architecture": None, "parameters": parameters, "flops": None}
        cost = bert_cost_model(supernet.config, path, self.manifest.length).cost(path)
        return {"architecture": str(path), "parameters": cost.parameters, "flops": cost.flops}

    def describe(self, supernet: EncoderSupernet, num_ranks: int) -> str:
        """Returns one line about what is trained on what."""
        training = self.config.training
        what = self.architecture or f"{self.space.num_layers} layers, {self.space.count():,} paths"
        parameters = sum(
            parameter.numel()
            for name, parameter in supernet.named_parameters()
            if not name.startswith(supernet.left_behind)
        )
        return (
            f"{self.verb}: {what}; {parameters / 1e6:.1f}M parameters; "
            f"{training.num_steps} steps of {training.rows_per_step} rows x "
            f"{self.manifest.length} tokens; {num_ranks} rank{'s' if num_ranks > 1 else ''}, "
            f"{training.precision}, ZeRO stage {training.zero_stage}"
        )
