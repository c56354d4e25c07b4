"""``magicbert retrain``: one architecture -> a model of its own, trained by the same engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from magicbert.bert.saving import load_supernet
from magicbert.bert.spaces import check_architecture, fitted_to
from magicbert.bert.supernet import BertSupernet
from magicbert.config.roots import RetrainConfig
from magicbert.config.sections import AlignmentSection, SamplingSection
from magicbert.errors import UserError
from magicbert.records import read_record
from magicbert.space import Architecture, SearchSpace
from magicbert.stages.encoder_training import EncoderTraining
from magicbert.trail import own_or_plain_folder, stage_folder

ARCHITECTURES_SCHEMA = "magicbert/architectures/1"
# What an architecture can be called by, and the list of the search's result that it stands in.
LISTS = {"rank": "results", "random": "random"}


def run(config: RetrainConfig) -> None:
    """Trains one architecture, from new weights or from those of the supernet's path.

    Raises:
        UserError: the architecture is not to be had, or does not fit.
    """
    search = own_or_plain_folder(config.run, "search")
    architecture = choose_architecture(config.architecture, search)
    config = dataclasses.replace(config, model=fitted_to(architecture, config.model))
    check_architecture(architecture, config.model.hidden_size)
    EncoderTraining(
        verb="retrain",
        config=config,
        folder=stage_folder(config.run, "retrain"),
        product="model",
        space=SearchSpace.of(architecture),
        sampling=SamplingSection(),
        alignment=AlignmentSection(),
        inherited=inherit(config, architecture),
    ).run()


def choose_architecture(wanted: str, search: Path) -> Architecture:
    """Returns the architecture that ``best``, ``rank:N``, ``random:N`` or a string asks for.

    Args:
        wanted: ``best`` is ``rank:1``, the search's winner; ``random:N`` is the N-th of those
            drawn uniformly within its limits.
        search: the folder of the search's result.

    Raises:
        UserError: there is no such rank, or the string is none.
    """
    kind, _, number = ("rank:1" if wanted == "best" else wanted).partition(":")
    if kind not in LISTS:
        return Architecture.parse(wanted)
    listed = read_record(search / "architectures.json", ARCHITECTURES_SCHEMA)[LISTS[kind]]
    if not number.isdecimal() or not 1 <= int(number) <= len(listed):
        raise UserError(
            f"architecture: {wanted!r}: the search wrote {kind}:1..{len(listed)}; "
            "use 'best', 'rank:N', 'random:N' or a string such as mha4-ffn-conv3"
        )
    return Architecture.parse(listed[int(number) - 1]["architecture"])


def inherit(config: RetrainConfig, architecture: Architecture) -> BertSupernet | None:
    """Returns the supernet to inherit from, if the configuration says so.

    Raises:
        UserError: there is none, or it does not hold the architecture.
    """
    if config.start == "scratch":
        return None
    supernet, _ = load_supernet(own_or_plain_folder(config.run, "pretrain") / "supernet")
    supernet.space.check(architecture)
    return supernet
