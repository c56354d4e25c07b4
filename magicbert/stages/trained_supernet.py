"""A run's trained supernet with the data it was trained on: what search and analyses work on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.bert.objectives.building import build_objective
from magicbert.bert.saving import WEIGHTS, load_supernet
from magicbert.bert.supernet import EncoderSupernet
from magicbert.config.reading import from_tree, read_yaml, to_tree
from magicbert.config.roots import PretrainConfig
from magicbert.config.sections import RunSection
from magicbert.data.source import TokenSource
from magicbert.data.verification import verify_prepared
from magicbert.errors import UserError
from magicbert.records import file_digest
from magicbert.supernet.objective import Objective
from magicbert.trail import own_or_plain_folder, run_folder


@dataclass(frozen=True)
class TrainedSupernet:
    """Weights and data that belong together.

    Attributes:
        supernet: the trained supernet, on the CPU.
        objective: that it was trained with.
        source: prepared data, masked as in pretraining.
        origin: digests and settings that decide every score.
    """

    supernet: EncoderSupernet
    objective: Objective
    source: TokenSource
    origin: dict[str, Any]


def open_trained(run: RunSection, *, rows_per_batch: int, seed: int) -> TrainedSupernet:
    """Opens supernet and data of a run and checks that they belong together.

    Args:
        run: of both.
        rows_per_batch: rows of a dev batch.
        seed: of the masks.

    Raises:
        UserError: there is no supernet, or it belongs to other data.
    """
    pretrain = own_or_plain_folder(run, "pretrain")
    supernet, details = load_supernet(pretrain / "supernet")
    config = read_pretrain_config(pretrain)
    masking = config.masking
    prepared = run_folder(run) / "prepare"
    if run.verify == "full":
        verify_prepared(prepared)
    source = TokenSource(
        prepared, masking, seed=seed, rows_per_step=rows_per_batch,
        rows_per_micro_batch=rows_per_batch,
    )  # fmt: skip
    data_digest = source.manifest.digest
    if details["data_digest"] != data_digest:
        raise UserError(
            f"{pretrain / 'supernet'}: trained on other data ({details['data_digest'][:12]}) than "
            f"the run's prepared data ({data_digest[:12]}); run pretrain again, or prepare as then"
        )
    origin = {
        "supernet_digest": file_digest(pretrain / "supernet" / WEIGHTS),
        "data_digest": data_digest,
        "masking": to_tree(masking),
        "objective": to_tree(config.objective),
    }
    return TrainedSupernet(supernet, build_objective(config.objective), source, origin)


def read_pretrain_config(folder: Path) -> PretrainConfig:
    """Returns the configuration that a pretraining was started with."""
    file = folder / "config.yaml"
    return from_tree(PretrainConfig, read_yaml(file), str(file))
