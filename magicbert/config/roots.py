"""One root dataclass per verb: the sections it needs, and what must hold between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option, section
from magicbert.config.sections import (
    AlignmentSection,
    BlocksSection,
    BlockTrainingSection,
    CompareSection,
    CorpusSection,
    DataBenchSection,
    DistillationSection,
    EngineBenchSection,
    FinetuneSection,
    FinetuneTeacherSection,
    InterferenceSection,
    KernelBenchSection,
    LatencySection,
    LaunchSection,
    MaskingSection,
    MeasureSection,
    ModelSection,
    ObjectiveSection,
    OnnxSection,
    OptimizerSection,
    RankingSection,
    RunSection,
    SamplerAnalysisSection,
    SamplingSection,
    SearchBenchSection,
    SearchSection,
    SelectSection,
    ShardSection,
    SpaceSection,
    SquadSection,
    StepBenchSection,
    TokenizerSection,
    TrainingSection,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Turns raw text into a tokenizer and packed rows of tokens."""

    run: RunSection = section(RunSection)
    corpus: CorpusSection = section(CorpusSection)
    tokenizer: TokenizerSection = section(TokenizerSection)
    shards: ShardSection = section(ShardSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Pretrains the supernet, one sampled path a step."""

    run: RunSection = section(RunSection)
    launch: LaunchSection = section(LaunchSection)
    space: SpaceSection = section(SpaceSection)
    model: ModelSection = section(ModelSection)
    objective: ObjectiveSection = section(ObjectiveSection)
    masking: MaskingSection = section(MaskingSection)
    sampling: SamplingSection = section(SamplingSection)
    alignment: AlignmentSection = section(AlignmentSection)
    optimizer: OptimizerSection = section(OptimizerSection)
    training: TrainingSection = section(TrainingSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        yield from batch_problems(self.launch, self.training)
        yield from masking_problems(self.objective, self.masking)
        layers = self.space.num_layers
        is_magic_t = self.sampling.method == "magic-t"
        if layers and is_magic_t and self.sampling.num_changes > layers:
            yield (
                f"sampling.num_changes: {self.sampling.num_changes} is above "
                f"space.num_layers {layers}"
            )
        is_mean = self.alignment.enabled and self.alignment.anchor == "children"
        if is_mean and self.training.zero_stage == 3:
            yield (
                "alignment.anchor: 'children' runs many paths a step, which ZeRO stage 3 does not "
                "gather; take training.zero_stage 0, 1 or 2"
            )
        if layers and self.alignment.enabled and self.alignment.num_blocks > layers:
            yield (
                f"alignment.num_blocks: {self.alignment.num_blocks} is above "
                f"space.num_layers {layers}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalyzeConfig:
    """Says whether a supernet can be trusted: sampler's walk, interference, fidelity of ranking."""

    target: Literal["sampler", "interference", "ranking"] = option(
        "interference", "what is analysed; `analyze sampler` for short"
    )
    run: RunSection = section(RunSection)
    sampler: SamplerAnalysisSection = section(SamplerAnalysisSection)
    interference: InterferenceSection = section(InterferenceSection)
    ranking: RankingSection = section(RankingSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        setting = self.interference
        if setting.shared_layer == setting.differing_layer:
            yield (
                f"interference.differing_layer: {setting.differing_layer} is the shared layer; "
                "children that share an operator differ elsewhere"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """Finds the best architecture of the trained supernet under limits."""

    run: RunSection = section(RunSection)
    launch: LaunchSection = section(LaunchSection)
    search: SearchSection = section(SearchSection)
    latency: LatencySection = section(LatencySection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """Trains one architecture on its own, from scratch or from inherited weights."""

    run: RunSection = section(RunSection)
    launch: LaunchSection = section(LaunchSection)
    architecture: str = option(
        "best",
        "'best' (the search's winner), 'rank:N' (its N-th), 'random:N' (drawn within its limits), "
        "'compressed:N' (the N-th that `compress select` wrote), or a string such as "
        "mha4-ffn-conv3",
    )
    start: Literal["scratch", "inherited", "imported"] = option(
        "scratch",
        "initial weights: new, those of the supernet's path, or those of `checkpoint`, whose "
        "architecture it then is",
    )
    checkpoint: str = option(
        "", "for start 'imported': folder or hub id of a BERT, RoBERTa, ELECTRA or own export"
    )
    model: ModelSection = section(ModelSection)
    objective: ObjectiveSection = section(ObjectiveSection)
    masking: MaskingSection = section(MaskingSection)
    distillation: DistillationSection = section(DistillationSection)
    optimizer: OptimizerSection = section(OptimizerSection)
    training: TrainingSection = section(TrainingSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        yield from batch_problems(self.launch, self.training)
        if (self.start == "imported") != bool(self.checkpoint):
            yield (
                f"checkpoint: {self.checkpoint[:80]!r} with start {self.start!r}: 'imported' needs "
                "a checkpoint, the others take none"
            )
        if self.distillation.teacher and self.objective.name != "mlm":
            yield "distillation.teacher: a teacher predicts tokens; take objective.name mlm"
        if self.distillation.attention_weight and self.training.zero_stage == 3:
            yield (
                "distillation.attention_weight: relations read an operator's weights after it has "
                "run, when ZeRO stage 3 has let go of them; take training.zero_stage 0, 1 or 2"
            )
        yield from masking_problems(self.objective, self.masking)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressConfig:
    """Finds small models: blocks trained against a teacher, then combined under a budget."""

    target: Literal["supernet", "select"] = option(
        "supernet", "train the blocks, or choose models from them; `compress select` for short"
    )
    run: RunSection = section(RunSection)
    launch: LaunchSection = section(LaunchSection)
    teacher: str = option(
        "",
        "exported folder, or the folder `model` of a retraining; for `select`, empty = the one "
        "that the blocks were trained with",
    )
    blocks: BlocksSection = section(BlocksSection)
    masking: MaskingSection = section(MaskingSection)
    sampling: SamplingSection = section(SamplingSection)
    alignment: AlignmentSection = section(AlignmentSection)
    optimizer: OptimizerSection = section(OptimizerSection)
    training: BlockTrainingSection = section(BlockTrainingSection)
    latency: LatencySection = section(LatencySection)
    select: SelectSection = section(SelectSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        if self.alignment.enabled and self.alignment.anchor != "best":
            yield (
                f"alignment.anchor: {self.alignment.anchor!r} is not offered for blocks, whose "
                "anchors are kept per width; take 'best'"
            )
        if (self.optimizer.name, self.optimizer.policy) != ("adamw", "path-sparse"):
            yield "optimizer: blocks are trained by adamw with policy path-sparse"
        if self.sampling.method == "strict-fair":
            yield "sampling.method: blocks are sampled by 'uniform' or 'magic-t'"
        if self.sampling.method == "magic-t":
            choices = self.blocks.layers_per_block + 1
            if self.sampling.num_changes > choices:
                yield (
                    f"sampling.num_changes: {self.sampling.num_changes} is above the {choices} "
                    "choices of a block, its width and its layers"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Writes a Hugging Face folder that loads without magicbert."""

    run: RunSection = section(RunSection)
    license: str = option("apache-2.0", "licence named in the model card")
    language: str = option("en", "language named in the model card")
    onnx: OnnxSection = section(OnnxSection)
    squad: SquadSection = section(SquadSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        is_squad = "squad" in self.onnx.task
        if not is_squad and self.squad != SquadSection():
            yield "squad: is for onnx.task squad or squad_v2"
        if is_squad and self.onnx.data:
            yield "onnx.data: holds GLUE; the files of SQuAD are squad.data"
        if self.squad.v1_warm_start:
            yield "squad.v1_warm_start: is for finetune; nothing is trained here"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """Writes a BERT, RoBERTa or ELECTRA checkpoint as an encoder of ours."""

    run: RunSection = section(RunSection)
    source: str = option("", "folder or hub id of the checkpoint; `--from` for short")

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """Fine-tunes a model on GLUE and SQuAD."""

    run: RunSection = section(RunSection)
    finetune: FinetuneSection = section(FinetuneSection)
    squad: SquadSection = section(SquadSection)
    distillation: FinetuneTeacherSection = section(FinetuneTeacherSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """Puts models side by side: scores, parameters, FLOPs, latency."""

    run: RunSection = section(RunSection)
    compare: CompareSection = section(CompareSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """Draws one self-contained HTML page of a run."""

    run: RunSection = section(RunSection)
    title: str = option("", "heading of the page; empty = the run's name")

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig:
    """Measures a part of magicbert side by side with its peers."""

    target: Literal["engine", "kernels", "step", "data", "search", "interference"] = option(
        "engine", "what is measured; `bench engine` for short"
    )
    run: RunSection = section(RunSection)
    publish: str = option("", "file that gets a copy of the record at the end; empty = none")
    engine: EngineBenchSection = section(EngineBenchSection)
    measure: MeasureSection = section(MeasureSection)
    kernels: KernelBenchSection = section(KernelBenchSection)
    step: StepBenchSection = section(StepBenchSection)
    data: DataBenchSection = section(DataBenchSection)
    search: SearchBenchSection = section(SearchBenchSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Says what this machine offers and what is missing."""

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartConfig:
    """Runs every stage in order, each with its file of one folder of configs."""

    configs: str = option("configs/tiny", "folder with prepare.yaml ... report.yaml")
    run: RunSection = section(RunSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())


def masking_problems(objective: ObjectiveSection, masking: MaskingSection) -> Iterator[str]:
    """Yields it if a masking rule does not fit the objective."""
    if objective.name == "rtd" and masking.rule != "electra":
        yield (
            f"masking.rule: {masking.rule!r} puts random tokens in, which objective.name 'rtd' "
            "leaves to the generator; take 'electra'"
        )


def batch_problems(launch: LaunchSection, training: TrainingSection) -> Iterator[str]:
    """Yields what keeps one step's rows from being split over ranks and micro-batches."""
    unit = training.rows_per_micro_batch * max(launch.num_ranks, 1)
    if training.rows_per_step % max(unit, 1):
        yield (
            f"training.rows_per_step: {training.rows_per_step} is not a multiple of "
            f"rows_per_micro_batch x num_ranks = {unit}"
        )
