"""``--plan`` of a training verb: what the run will take, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from magicbert.bert.cost import bert_cost_model, num_parameters
from magicbert.bert.objective_cost import objective_flops
from magicbert.bert.rehearsal import Rehearsal, rehearsal_supernet
from magicbert.bert.spaces import check_architecture, resolve_space
from magicbert.config.deepspeed_dict import LARGEST_BUCKET, num_micro_batches
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import PretrainConfig, RetrainConfig, batch_problems
from magicbert.config.sections import AlignmentSection, LaunchSection, ModelSection
from magicbert.errors import ConfigError
from magicbert.planning.backward import Sharding
from magicbert.planning.budget import (
    SECONDS_TO_SAVE,
    Hours,
    PathFlops,
    SaveTime,
    StepFlops,
    save_time,
)
from magicbert.planning.disk import measure_disk
from magicbert.planning.memory import RankMemory, rank_memory
from magicbert.planning.plan import Plan
from magicbert.space import Architecture, SearchSpace
from magicbert.stages.plan_distillation import PlannedDistillation
from magicbert.stages.plan_facts import Rate, Rows, planned_ranks, rate_of, rows_of
from magicbert.stages.plan_forward import WIDTHS, forward_memory, is_on_gpu
from magicbert.stages.retrain import choose_model
from magicbert.supernet.anchor import num_references
from magicbert.trail import run_folder, stage_folder
from magicbert.training.path_sparse.groups import (
    SHARED,
    GroupIndex,
    ParameterGroup,
    parameter_groups,
)

MEGABYTE = 1e6


def run(verb: str, config: PretrainConfig | RetrainConfig, options: PlanSection) -> None:
    """Prints the plan.

    Raises:
        UserError: ranks and batch do not fit, or neither data nor sizes are given.
    """
    plan = Planner(verb, config, options).plan()
    print(json.dumps(plan.as_json(), indent=2) if options.format == "json" else plan.as_text())


@dataclass(frozen=True)
class Planner:
    """Gathers what the arithmetic needs.

    Attributes:
        verb: ``pretrain`` or ``retrain``.
        config: its configuration.
        options: what ``--plan`` takes as given.
    """

    verb: str
    config: PretrainConfig | RetrainConfig
    options: PlanSection

    def plan(self) -> Plan:
        """Returns the plan.

        Raises:
            UserError: ranks and batch do not fit, or neither data nor sizes are given.
        """
        self.check()
        training, taught = self.config.training, self.distillation
        flops = StepFlops.of(
            self.path_flops,
            training.rows_per_step,
            num_references=num_references(self.alignment, self.space),
            teacher=taught.teacher_flops(self.num_predicted) if taught else 0.0,
        )
        unaligned = min(self.alignment.delay_steps, training.num_steps)
        run_flops = flops.mean * training.num_steps - flops.anchor * unaligned
        rate, ranks = self.rate.tokens_per_second, self.num_ranks
        return Plan(
            headline=self.headline(),
            num_ranks=ranks,
            parameters=num_parameters(self.supernet),
            steps=training.num_steps,
            tokens=self.num_tokens,
            memory=self.memory(),
            path_flops=self.path_flops,
            step_flops=flops,
            run_flops=run_flops,
            checkpoint=self.checkpoint,
            tokens_per_second=rate,
            rate_source=self.rate.source,
            hours=Hours.of(self.num_tokens, rate, ranks, run_flops) if rate else None,
            warnings=tuple(self.warnings()),
        )

    def check(self) -> None:
        """Raises `ConfigError` if the rows of a step cannot be shared among the ranks."""
        launch = LaunchSection(num_ranks=self.num_ranks)
        problems = list(batch_problems(launch, self.config.training))
        if problems:
            raise ConfigError(f"{self.verb} --plan on {self.num_ranks} ranks", problems)

    # --- the model -------------------------------------------------------------------------

    @cached_property
    def space(self) -> SearchSpace:
        """The paths that are trained."""
        if isinstance(self.config, PretrainConfig):
            return resolve_space(self.config.space, self.config.model.hidden_size)
        architecture, model = choose_model(self.config)
        check_architecture(architecture, model.hidden_size)
        return SearchSpace.of(architecture)

    @cached_property
    def model(self) -> ModelSection:
        """Sizes of the encoder; an architecture may state its own hidden size."""
        if isinstance(self.config, PretrainConfig):
            return self.config.model
        return choose_model(self.config)[1]

    @property
    def alignment(self) -> AlignmentSection:
        """MAGIC-A; off when retraining."""
        config = self.config
        return config.alignment if isinstance(config, PretrainConfig) else AlignmentSection()

    @cached_property
    def rows(self) -> Rows:
        """What a row is made of."""
        return rows_of(self.config.run, self.options, self.config.model.max_length)

    @cached_property
    def supernet(self) -> Rehearsal:
        """The model without memory."""
        rows, taught = self.rows, self.distillation
        return rehearsal_supernet(
            self.space, self.model, rows.vocab_size, is_packed=rows.is_packed,
            objective=self.config.objective, matching=taught.matching if taught else None,
        )  # fmt: skip

    @cached_property
    def distillation(self) -> PlannedDistillation | None:
        """The teacher beside the labels, if there is one."""
        return PlannedDistillation.of(self.config, self.options, self.rows, self.space, self.model)

    @cached_property
    def groups(self) -> list[ParameterGroup]:
        """The optimizer's parameter groups."""
        return parameter_groups(self.supernet, self.config.optimizer.weight_decay)

    @cached_property
    def group_sizes(self) -> list[int]:
        """Values of each parameter group."""
        return [sum(parameter.numel() for parameter in group["params"]) for group in self.groups]

    @property
    def largest_path(self) -> Architecture:
        """The path with most parameters."""
        layers = enumerate(self.space.layers)
        return Architecture(tuple(self.largest_operator(at, names) for at, names in layers))

    def largest_operator(self, layer: int, names: Sequence[str]) -> str:
        """Returns the operator of a layer with most parameters."""
        sizes = {name: num_parameters(self.supernet.operator(layer, name)) for name in names}
        return max(names, key=sizes.__getitem__)

    # --- figures ---------------------------------------------------------------------------

    @cached_property
    def num_ranks(self) -> int:
        """Ranks of all hosts."""
        return planned_ranks(self.config.launch, self.options)

    @property
    def num_tokens(self) -> int:
        """Positions of all steps."""
        training = self.config.training
        return training.num_steps * training.rows_per_step * self.rows.length

    @cached_property
    def rate(self) -> Rate:
        """Tokens a second, if anything is known of it."""
        folder = stage_folder(self.config.run, self.verb)
        return rate_of(folder, self.options, self.num_ranks)

    @property
    def sharding(self) -> Sharding:
        """How state is spread over the ranks."""
        training = self.config.training
        return Sharding(
            stage=training.zero_stage,
            num_ranks=self.num_ranks,
            value_bytes=WIDTHS[training.precision].itemsize,
            bucket_values=min(sum(self.group_sizes), LARGEST_BUCKET),
            accumulates=num_micro_batches(training, self.num_ranks) > 1,
            offloads=training.offload_optimizer,
            most_live=training.max_live_parameters,
            is_gloo=not is_on_gpu(self.options.device),
        )

    def memory(self) -> RankMemory:
        """Returns the memory of one rank."""
        index = GroupIndex.of(self.groups)
        numbers, shared = index.of_path(self.largest_path), index.by_owner[SHARED]
        path, taught = [self.group_sizes[number] for number in numbers], self.distillation
        forward = forward_memory(
            self.supernet, self.config, self.alignment, self.rows, self.options.device,
            taught.objective() if taught else None,
        )  # fmt: skip
        # At worst the anchor shares no operator with the path.
        own = [size for number, size in zip(numbers, path, strict=True) if number not in shared]
        anchor = own if self.alignment.enabled else []
        teacher = taught.teacher_bytes if taught else 0
        return rank_memory(self.sharding, self.group_sizes, path, forward, anchor, teacher)

    @property
    def num_predicted(self) -> float:
        """Masked positions of a row."""
        return self.rows.length * self.config.masking.probability

    @cached_property
    def path_flops(self) -> PathFlops:
        """FLOPs of one row's forward, with what the objective adds."""
        rows = self.rows
        head = objective_flops(
            self.config.objective, self.supernet.outline, rows.length, self.num_predicted
        )
        if self.distillation:
            head += self.distillation.student_flops(self.supernet)
        is_path = self.space.count() == 1
        every = [name for layer in self.space.layers for name in layer]
        names = Architecture(tuple(every)) if is_path else every
        cost = bert_cost_model(self.supernet.config, names, rows.length)
        return PathFlops.of(self.space, cost, head)

    @property
    def step_seconds(self) -> float:
        """Seconds of one step; 0 = not known."""
        rate = self.rate.tokens_per_second
        return self.config.training.rows_per_step * self.rows.length / rate if rate else 0.0

    @cached_property
    def checkpoint(self) -> SaveTime:
        """Size and time of a checkpoint, on the disk that holds the runs."""
        speed = measure_disk(run_folder(self.config.run))
        given = self.options.disk_megabytes_per_second * MEGABYTE
        shards = self.sharding.num_parts
        return save_time(
            self.group_sizes, shards, given or speed.write, speed.digest, self.step_seconds
        )

    def warnings(self) -> Iterator[str]:
        """Yields what deserves a second look."""
        saved = self.checkpoint
        if not saved.is_in_time:
            step = f"a step of {self.step_seconds:.1f} s and " if self.step_seconds else ""
            yield (
                f"{step}a checkpoint of {saved.seconds:.1f} s do not fit into the "
                f"{SECONDS_TO_SAVE:.0f} s that the deepspeed launcher leaves between SIGTERM and "
                "SIGKILL: a run stopped so loses the steps since its last checkpoint "
                "(training.checkpoint_every). Slurm's --signal leaves more time."
            )

    def headline(self) -> str:
        """Returns one line about what is trained on what."""
        training, ranks = self.config.training, self.num_ranks
        offloaded = ", optimizer offloaded" if training.offload_optimizer else ""
        return (
            f"{self.verb}: {self.space.num_layers} layers, {self.space.count():,} paths, "
            f"{num_parameters(self.supernet) / 1e6:.1f}M parameters; {training.num_steps:,} steps "
            f"of {training.rows_per_step:,} rows x {self.rows.length} tokens; {ranks} "
            f"rank{'s' if ranks > 1 else ''}, {training.precision}, ZeRO stage "
            f"{training.zero_stage}{offloaded}"
        )
