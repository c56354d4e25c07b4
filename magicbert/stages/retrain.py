"""``magicbert retrain``: one architecture -> a model of its own, trained by the same engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from magicbert.bert.importing import import_encoder
from magicbert.bert.inheritance import Inheritance
from magicbert.bert.saving import load_supernet
from magicbert.bert.spaces import check_architecture, fitted_to
from magicbert.config.roots import RetrainConfig
from magicbert.config.sections import AlignmentSection, ModelSection, SamplingSection
from magicbert.errors import UserError
from magicbert.records import read_record
from magicbert.space import Architecture, SearchSpace
from magicbert.stages.encoder_training import EncoderTraining
from magicbert.trail import own_or_plain_folder, run_folder, stage_folder

ARCHITECTURES_SCHEMA = "magicbert/architectures/1"
# What an architecture can be called by, and the list of the search's result that it stands in.
LISTS = {"rank": "results", "random": "random"}
COMPRESSED = "compressed:"


def run(config: RetrainConfig) -> None:
    """Trains one architecture, from new weights or from those of the supernet's path.

    Raises:
        UserError: the architecture is not to be had, or does not fit.
    """
    inherited = inherit(config)
    architecture, model = choose_model(config)
    config = dataclasses.replace(config, model=model)
    check_architecture(architecture, model.hidden_size)
    EncoderTraining(
        verb="retrain",
        config=config,
        folder=stage_folder(config.run, "retrain"),
        product="model",
        space=SearchSpace.of(architecture),
        sampling=SamplingSection(),
        alignment=AlignmentSection(),
        inherited=inherited,
        distillation=config.distillation,
    ).run()


def choose_model(config: RetrainConfig) -> tuple[Architecture, ModelSection]:
    """Returns the architecture that a configuration asks for, and the sizes that go with it.

    A compressed model states its widths, and its embedding size stands beside it.

    Raises:
        UserError: there is no such architecture.
    """
    wanted, sizes = config.architecture, config.model
    if config.start == "imported":
        there = import_encoder(config.checkpoint).model.config.architecture
        architecture = Architecture.parse(there)
        check_same(config, architecture)
    elif wanted.startswith(COMPRESSED):
        chosen = own_or_plain_folder(config.run, "compress")
        model = listed_model(chosen, "results", wanted)
        sizes = dataclasses.replace(sizes, embedding_size=model["embedding_size"])
        architecture = Architecture.parse(model["architecture"])
    else:
        search = own_or_plain_folder(config.run, "search")
        architecture = choose_architecture(wanted, search)
    return architecture, fitted_to(architecture, sizes)


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
    return Architecture.parse(listed_model(search, LISTS[kind], f"{kind}:{number}")["architecture"])


def listed_model(folder: Path, name: str, wanted: str) -> dict[str, Any]:
    """Returns one entry of a list of architectures.

    Args:
        folder: of the search, or of the choice from blocks, that wrote the list.
        name: of the list.
        wanted: such as ``rank:2``, which counts from 1.

    Raises:
        UserError: there is no such entry.
    """
    listed = read_record(folder / "architectures.json", ARCHITECTURES_SCHEMA)[name]
    kind, _, number = wanted.partition(":")
    if not number.isdecimal() or not 1 <= int(number) <= len(listed):
        raise UserError(
            f"architecture: {wanted!r}: {folder} has {kind}:1..{len(listed)}; use 'best', "
            "'rank:N', 'random:N', 'compressed:N' or a string such as mha4-ffn-conv3"
        )
    entry: dict[str, Any] = listed[int(number) - 1]
    return entry


def inherit(config: RetrainConfig) -> Inheritance | None:
    """Returns the weights to start from, if the configuration asks for some.

    Raises:
        UserError: there are none, or they are not of the architecture.
    """
    if config.start == "scratch":
        return None
    if config.start == "inherited":
        supernet, _ = load_supernet(own_or_plain_folder(config.run, "pretrain") / "supernet")
        return Inheritance.of_path(supernet, choose_model(config)[0])
    imported = import_encoder(config.checkpoint)
    inherited = Inheritance.of_import(config.checkpoint, imported)
    check_same(config, inherited.architecture)
    check_same_tokens(imported.folder, run_folder(config.run) / "prepare" / "tokenizer")
    return inherited


def check_same(config: RetrainConfig, there: Architecture) -> None:
    """Raises `UserError` if another architecture is asked for than a checkpoint's."""
    if config.architecture not in ("best", str(there)):
        raise UserError(
            f"architecture: {config.architecture}, but {config.checkpoint} is {there}; with start "
            "'imported' leave it out"
        )


def check_same_tokens(checkpoint: Path, prepared: Path) -> None:
    """Raises `UserError` if a checkpoint's tokenizer is not that of the prepared data."""
    file = "tokenizer.json"
    if not (checkpoint / file).is_file() or not (prepared / file).is_file():
        return
    one, other = (Tokenizer.from_file(str(folder / file)) for folder in (checkpoint, prepared))
    if one.get_vocab() != other.get_vocab():
        raise UserError(
            f"{checkpoint / file}: other tokens than those of {prepared}; prepare the data with "
            f"--tokenizer.kind load --tokenizer.path {checkpoint}"
        )
