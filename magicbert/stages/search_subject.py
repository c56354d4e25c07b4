"""What a search works on, opened from a checkpoint, a table, or a user's own function."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.saving import RECORD, SCHEMA
from magicbert.config.roots import SearchConfig
from magicbert.config.sections import SearchSection
from magicbert.data.manifest import read_manifest
from magicbert.errors import UserError
from magicbert.ranking.table import Table
from magicbert.records import file_digest, read_record
from magicbert.search.choices import Choices
from magicbert.search.evaluator import Evaluator, InheritedWeights, KnownLosses, LossFunction
from magicbert.search.progress import watched
from magicbert.space import CostModel, Limits, SearchSpace
from magicbert.space.feasible import FeasiblePaths
from magicbert.space.listed import ListedPaths
from magicbert.stages.trained_supernet import open_trained
from magicbert.trail import own_or_plain_folder, run_folder

# One batch fills a CPU's core; a GPU waits for its launches between small ones.
STACKED = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class Subject:
    """What is searched.

    Attributes:
        choices: the architectures, under the limits.
        evaluate: scores them.
        origin: digests and settings that decide every score.
        knows_accuracy: whether scores hold more than losses.
        encoder: sizes of the encoder whose latency can be measured; ``None`` = there is none.
        length: tokens of a prepared row.
        has_latency: whether the costs hold latencies.
        latency_digest: of the table that they are from; empty = they are the user's own.
        latency_error: how far sums of that table were off, for the record.
    """

    choices: Choices
    evaluate: Evaluator
    origin: dict[str, Any]
    knows_accuracy: bool = False
    encoder: MagicBertConfig | None = None
    length: int = 0
    has_latency: bool = False
    latency_digest: str = ""
    latency_error: dict[str, Any] | None = None

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the Pareto front is over."""
        return ("loss", "parameters", "flops", *(("latency",) if self.has_latency else ()))

    @property
    def result_origin(self) -> dict[str, Any]:
        """What decides the result beside the settings: scores, and latencies if there are any."""
        return self.origin | ({"latency_digest": self.latency_digest} if self.has_latency else {})


def open_subject(config: SearchConfig) -> Subject:
    """Opens whatever ``search.scorer`` names; nothing is written.

    Raises:
        UserError: it is not there, or does not fit the run.
    """
    openers = {"checkpoint": open_checkpoint, "table": open_table, "callable": open_callable}
    return openers[config.search.scorer](config)


def limits_of(section: SearchSection) -> Limits:
    """Returns the limits that every scored architecture keeps."""
    return Limits(
        section.max_parameters, section.min_parameters, section.max_flops, section.max_latency_ms
    )


def open_checkpoint(config: SearchConfig) -> Subject:
    """Opens the run's supernet with its data and the costs of its operators."""
    section = config.search
    rows = section.rows_per_batch
    trained = open_trained(config.run, rows_per_batch=rows, seed=section.seed)
    supernet, source = trained.supernet, trained.source
    costs = costs_in(supernet.space, supernet.config, source.manifest.length)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluator = InheritedWeights(
        supernet.to(device),
        trained.objective,
        source.dev_batches(max(section.num_dev_batches, section.num_final_batches)),
        max_bytes=int(section.memory_gib * 2**30),
        most_stacked=section.stacked_prefixes or STACKED[device.type],
        watch=watched,
    )
    choices = FeasiblePaths(supernet.space, costs, limits_of(section))
    return Subject(
        choices,
        evaluator,
        trained.origin | {"rows_per_batch": rows},
        knows_accuracy=True,
        encoder=supernet.config,
        length=source.manifest.length,
    )


def open_table(config: SearchConfig) -> Subject:
    """Opens a tabular benchmark: its rows are all that may be chosen, its seeds are the batches.

    Raises:
        UserError: the file is missing or damaged, or has no losses of that budget.
    """
    file, budget = Path(config.search.table), config.search.table_budget
    table = Table.read(file)
    names = table.names("loss")
    chosen = budget or next(iter(names), "")
    rows, losses = table.matrix("loss", chosen)
    if not losses.size:
        known = ", ".join(names) or "none"
        raise UserError(f"{file}: no losses of budget {chosen!r}; search.table_budget: {known}")
    costs = {row.architecture: row.cost for row in rows}
    known_losses = {
        row.architecture: values for row, values in zip(rows, losses.tolist(), strict=True)
    }
    choices = ListedPaths(costs, limits_of(config.search))
    origin = {"table_digest": file_digest(file), "budget": chosen}
    return Subject(choices, KnownLosses(known_losses), origin)


def open_callable(config: SearchConfig) -> Subject:
    """Imports a user's function; its attributes ``space`` and ``costs`` stand in for the run's.

    Raises:
        UserError: it cannot be imported or called, or the run has no supernet to take a space from.
    """
    section = config.search
    function = imported(section.callable)
    given = [getattr(function, name, None) for name in ("space", "costs")]
    space, costs, encoder, length = *given, None, 0
    if None in given:
        space, encoder, length = space_of_run(config)
        costs = costs_in(space, encoder, length)
    if not isinstance(space, SearchSpace) or not isinstance(costs, CostModel):
        raise UserError(
            f"search.callable: {section.callable}: its space must be a magicbert.space.SearchSpace "
            "and its costs a magicbert.space.CostModel"
        )
    evaluator = LossFunction(
        function, max(section.num_dev_batches, section.num_final_batches), section.callable
    )
    source = getattr(sys.modules[section.callable.partition(":")[0]], "__file__", None)
    origin = {
        "callable": section.callable,
        "source_digest": file_digest(Path(source)) if source else "",
    }
    return Subject(
        FeasiblePaths(space, costs, limits_of(section)),
        evaluator,
        origin,
        encoder=encoder,
        length=length,
        has_latency=any(cost.latency_ns for cost in costs.operators.values()),
    )


def imported(name: str) -> Any:
    """Imports ``module:name`` from Python's path or the current folder.

    Raises:
        UserError: there is no such module or name, its import fails, or it cannot be called.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(f"search.callable: {name} cannot be imported: {error}") from error
    if not callable(found):
        raise UserError(f"search.callable: {name} is a {type(found).__name__}, not a function")
    return found


def space_of_run(config: SearchConfig) -> tuple[SearchSpace, MagicBertConfig, int]:
    """Returns the space and the sizes of the run's supernet, and the tokens of a prepared row.

    Raises:
        UserError: there is no supernet.
    """
    record = read_record(own_or_plain_folder(config.run, "pretrain") / "supernet" / RECORD, SCHEMA)
    space = SearchSpace.from_json(record["space"])
    encoder = MagicBertConfig(architecture="", **record["config"])
    length = read_manifest(run_folder(config.run) / "prepare").length
    return space, encoder, length


def costs_in(space: SearchSpace, encoder: MagicBertConfig, length: int) -> CostModel:
    """Returns what the operators of a space cost on a full row."""
    operators = dict.fromkeys(name for names in space.layers for name in names)
    return bert_cost_model(encoder, operators, length)
