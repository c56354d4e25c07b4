"""BERT as the tenant of a ranking study: models, batches and fine-tuning in a worker's process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.extraction import extract
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.spaces import resolve_space
from magicbert.bert.stacked_supernet import StackedBert
from magicbert.bert.supernet import BertSupernet, build_supernet, supernet_config
from magicbert.config.sections import RankingSection
from magicbert.data.batch import TokenBatch
from magicbert.data.manifest import Manifest, read_manifest
from magicbert.data.source import TokenSource
from magicbert.export.huggingface import write_export
from magicbert.interference.probe import InterferenceProbe
from magicbert.space import Architecture, SearchSpace
from magicbert.space.cost import Cost, CostModel
from magicbert.stages.ranking_downstream import FineTuning
from magicbert.study.trials import Trials
from magicbert.study.units import AloneUnit
from magicbert.supernet.objective import Objective
from magicbert.supernet.supernet import Supernet
from magicbert.training.parts import Probe

CARD = (
    "A model of a ranking study, kept to be fine-tuned. Its row is in the study's `rows.jsonl`.\n"
)


@dataclass(frozen=True)
class BertTenant:
    """Builds what a study trains.

    Attributes:
        setting: of the study.
        prepared: folder of the run's prepared data.
        device: to train on.
    """

    setting: RankingSection
    prepared: Path
    device: torch.device

    @cached_property
    def objective(self) -> Objective:
        """Masked language modelling."""
        return MaskedLanguageModeling()

    @cached_property
    def probe(self) -> Probe:
        """Compares the gradients of two paths."""
        return InterferenceProbe(self.objective)

    @cached_property
    def manifest(self) -> Manifest:
        """Of the prepared data."""
        return read_manifest(self.prepared)

    @cached_property
    def space(self) -> SearchSpace:
        """Space of the supernets."""
        return resolve_space(self.setting.space, self.setting.model.hidden_size)

    @cached_property
    def costs(self) -> CostModel:
        """Costs of the operators, for one row."""
        manifest = self.manifest
        config = supernet_config(self.setting.model, manifest.vocab_size, manifest.pad_id)
        return bert_cost_model(config, self.space.layers[0], manifest.length)

    @cached_property
    def head_flops(self) -> float:
        """FLOPs of one row's predictions: transform and decoder on the predicted positions."""
        model, manifest = self.setting.model, self.manifest
        num_predicted = manifest.length * self.setting.masking.probability
        table = model.embedding_size or model.hidden_size
        return num_predicted * 2 * table * (model.hidden_size + manifest.vocab_size)

    def build(self, space: SearchSpace, seed: int) -> Supernet:
        """Returns a supernet with new weights."""
        manifest, setting = self.manifest, self.setting
        return build_supernet(
            space, setting.model, manifest.vocab_size, manifest.pad_id, seed=seed,
            backend=setting.backend,
        ).to(self.device)  # fmt: skip

    def stack(self, supernets: Sequence[Supernet]) -> StackedBert:
        """Returns supernets as one module that runs a path of each."""
        return StackedBert(cast(Sequence[BertSupernet], supernets))

    def source(self, seed: int) -> TokenSource:
        """Returns the masked rows of a seed."""
        setting = self.setting
        return self.rows(seed, setting.rows_per_step, setting.rows_per_micro_batch)

    def dev_batches(self) -> list[TokenBatch]:
        """Returns the fixed batches behind every loss."""
        size = self.setting.rows_per_dev_batch
        return self.rows(0, size, size).dev_batches(self.setting.num_dev_batches)

    def rows(self, seed: int, rows_per_step: int, rows_per_batch: int) -> TokenSource:
        """Opens the prepared rows."""
        return TokenSource(
            self.prepared, self.setting.masking, seed=seed, rows_per_step=rows_per_step,
            rows_per_micro_batch=rows_per_batch,
        )  # fmt: skip

    def cost(self, architecture: Architecture) -> Cost:
        """Returns parameters and FLOPs of the encoder."""
        return self.costs.cost(architecture)

    def forward_flops(self, architecture: Architecture) -> float:
        """Returns the FLOPs of encoder and predictions."""
        return self.cost(architecture).flops + self.head_flops

    def keep(self, supernet: Supernet, unit: AloneUnit, folder: Path) -> None:
        """Writes a model as an exported folder."""
        assert isinstance(supernet, BertSupernet)
        origin = {
            "stage": "analyze-ranking",
            "unit": unit.key,
            "data_digest": self.manifest.digest,
            "tokenizer_digest": self.manifest.tokenizer_digest,
        }
        model = extract(supernet, unit.architecture).to("cpu")
        write_export(folder, model, self.prepared / "tokenizer", CARD, origin)

    @cached_property
    def fine_tuning(self) -> FineTuning:
        """Fine-tunes kept models; rows of a task are read once."""
        return FineTuning(self.setting.downstream)

    def finetune(self, folder: Path, task: str, seed: int) -> tuple[str, float]:
        """Returns the main metric of the task and its value on the dev rows."""
        return self.fine_tuning(folder, task, seed)


def open_trials(worker: int, setting: RankingSection, prepared: Path, folder: Path,
                table: tuple[Architecture, ...]) -> Trials:  # fmt: skip
    """Opens what does the units, in a worker's process.

    Args:
        worker: its number; workers share the GPUs in turn.
        setting: of the study.
        prepared: folder of the run's prepared data.
        folder: of the stage.
        table: architectures that are trained alone.
    """
    tenant = BertTenant(setting, prepared, device_of(worker))
    return Trials(tenant, setting, tenant.space, table, folder)


def device_of(worker: int) -> torch.device:
    """Returns where a worker trains: on one of the GPUs, or on the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", worker % torch.cuda.device_count())
