"""The sections shared by the verbs. Defaults live here and nowhere else."""

from __future__ import annotations

from magicbert.config.sections.analysis import InterferenceSection, SamplerAnalysisSection
from magicbert.config.sections.bench import (
    DataBenchSection,
    EngineBenchSection,
    KernelBenchSection,
    MeasureSection,
    SearchBenchSection,
    StepBenchSection,
)
from magicbert.config.sections.compare import ComparedModelSection, CompareSection
from magicbert.config.sections.compression import (
    BlocksSection,
    BlockTrainingSection,
    DistillationSection,
    SelectSection,
)
from magicbert.config.sections.data import (
    CorpusSection,
    MaskingSection,
    ShardSection,
    TokenizerSection,
)
from magicbert.config.sections.finetune import FinetuneSection, FinetuneTeacherSection
from magicbert.config.sections.latency import LatencySection
from magicbert.config.sections.model import ModelSection, SpaceSection
from magicbert.config.sections.objective import ObjectiveSection
from magicbert.config.sections.onnx import OnnxSection
from magicbert.config.sections.ranking import (
    DownstreamSection,
    RankingSection,
    StudiedSupernetSection,
)
from magicbert.config.sections.run import LaunchSection, RunSection
from magicbert.config.sections.search import SearchSection
from magicbert.config.sections.squad import SquadSection
from magicbert.config.sections.training import (
    AlignmentSection,
    OptimizerSection,
    SamplingSection,
    TrainingSection,
)

__all__ = [
    "AlignmentSection",
    "BlockTrainingSection",
    "BlocksSection",
    "CompareSection",
    "ComparedModelSection",
    "CorpusSection",
    "DataBenchSection",
    "DistillationSection",
    "DownstreamSection",
    "EngineBenchSection",
    "FinetuneSection",
    "FinetuneTeacherSection",
    "InterferenceSection",
    "KernelBenchSection",
    "LatencySection",
    "LaunchSection",
    "MaskingSection",
    "MeasureSection",
    "ModelSection",
    "ObjectiveSection",
    "OnnxSection",
    "OptimizerSection",
    "RankingSection",
    "RunSection",
    "SamplerAnalysisSection",
    "SamplingSection",
    "SearchBenchSection",
    "SearchSection",
    "SelectSection",
    "ShardSection",
    "SpaceSection",
    "SquadSection",
    "StepBenchSection",
    "StudiedSupernetSection",
    "TokenizerSection",
    "TrainingSection",
]
