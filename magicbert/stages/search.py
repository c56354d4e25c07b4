"""``magicbert search``: a trained supernet -> its best architectures under limits."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet
from magicbert.config.reading import to_tree
from magicbert.config.roots import SearchConfig
from magicbert.config.sections import SearchSection
from magicbert.data.source import TokenSource
from magicbert.records import read_record, write_record
from magicbert.run_lock import alone_in
from magicbert.search.candidate import Candidate
from magicbert.search.evaluator import InheritedWeights
from magicbert.search.progress import watched
from magicbert.search.progressive import ProgressiveSearch, Round
from magicbert.search.score_file import ScoreFile
from magicbert.space import CostModel, Limits
from magicbert.space.feasible import FeasiblePaths
from magicbert.space.randomness import keyed_generator
from magicbert.stages.trained_supernet import open_trained
from magicbert.trail import Trail, stage_folder

LOGGER = logging.getLogger("magicbert")
RESULT = "architectures.json"
SCHEMA = "magicbert/architectures/1"
SCORES = "scores.jsonl"


@dataclass(frozen=True)
class Inputs:
    """What the search works on.

    Attributes:
        supernet: the trained supernet.
        source: prepared data, masked as in pretraining; its dev batches score.
        costs: cost of the supernet's operators on a full row.
        origin: digests and sizes that decide every score.
    """

    supernet: BertSupernet
    source: TokenSource
    costs: CostModel
    origin: dict[str, Any]


def run(config: SearchConfig) -> None:
    """Searches and writes ``architectures.json``; started again, it goes on where it stopped.

    Raises:
        UserError: there is no supernet, it belongs to other data, or no architecture keeps the
            limits.
    """
    folder = stage_folder(config.run, "search")
    with alone_in(folder):
        search_in(folder, config)


def search_in(folder: Path, config: SearchConfig) -> None:
    """Searches in a folder that no other process works in."""
    inputs = open_inputs(config)
    if is_finished(folder / RESULT, config, inputs.origin):
        LOGGER.info("search is finished already: %s", folder / RESULT)
        return
    scores = ScoreFile(folder / SCORES, inputs.origin)
    search = build_search(config.search, inputs, scores)
    with Trail(folder, config) as trail:
        if len(scores):
            LOGGER.info("search: %d scores of an earlier start are used", len(scores))
        best = search.run(lambda finished: report_round(finished, trail))
        scores.close()
        write_result(folder / RESULT, config.search, search, best, inputs.origin)
        LOGGER.info("best: %s, loss %.4f, %s", best[0].architecture, best[0].loss, best[0].cost)
        LOGGER.info("search finished: %s", folder / RESULT)


def open_inputs(config: SearchConfig) -> Inputs:
    """Opens supernet and data and adds the costs of the operators."""
    rows = config.search.rows_per_batch
    trained = open_trained(config.run, rows_per_batch=rows, seed=config.search.seed)
    supernet, source = trained.supernet, trained.source
    operators = dict.fromkeys(name for names in supernet.space.layers for name in names)
    costs = bert_cost_model(supernet.config, operators, source.manifest.length)
    return Inputs(supernet, source, costs, trained.origin | {"rows_per_batch": rows})


def build_search(section: SearchSection, inputs: Inputs, scores: ScoreFile) -> ProgressiveSearch:
    """Puts the search together; nothing is written yet.

    Raises:
        UserError: no architecture keeps the limits.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluator = InheritedWeights(
        inputs.supernet.to(device),
        MaskedLanguageModeling(),
        inputs.source.dev_batches(max(section.num_dev_batches, section.num_final_batches)),
        scores=scores,
        watch=watched,
    )
    limits = Limits(section.max_parameters, section.min_parameters, section.max_flops)
    return ProgressiveSearch(inputs.supernet.space, inputs.costs, limits, section, evaluator)


def is_finished(file: Path, config: SearchConfig, origin: dict[str, Any]) -> bool:
    """Returns whether a result of the same settings, weights and data stands already."""
    if not file.is_file():
        return False
    former = read_record(file, SCHEMA)
    return bool(former["origin"] == origin and former["settings"] == to_tree(config.search))


def report_round(finished: Round, trail: Trail) -> None:
    """Writes one round to the log and to the metrics."""
    best = finished.candidates[0]
    mean_loss = sum(c.loss for c in finished.candidates) / len(finished.candidates)
    LOGGER.info(
        "search round %d: %d architectures on %d dev batches, best loss %.4f, mean %.4f; "
        "%d operators dropped, %.3g architectures left",
        finished.number, len(finished.candidates), finished.num_batches, best.loss, mean_loss,
        len(finished.dropped), finished.space.count(),
    )  # fmt: skip
    trail.record(
        "round",
        round=finished.number,
        num_scored=len(finished.candidates),
        num_batches=finished.num_batches,
        best=str(best.architecture),
        best_loss=best.loss,
        mean_loss=mean_loss,
        dropped=[list(pair) for pair in finished.dropped],
        num_left=finished.space.count(),
    )


def random_baselines(section: SearchSection, search: ProgressiveSearch) -> list[dict[str, Any]]:
    """Returns architectures drawn uniformly within the limits: what the winner must beat."""
    paths = FeasiblePaths(search.space, search.model, search.limits)
    generator = keyed_generator(section.seed, "random-baselines", 0)
    drawn = paths.draw(section.num_random, generator) if section.num_random else ()
    costs = [(path, search.model.cost(path)) for path in drawn]
    return [
        {"architecture": str(path), "parameters": cost.parameters, "flops": cost.flops}
        for path, cost in costs
    ]


def write_result(
    file: Path,
    section: SearchSection,
    search: ProgressiveSearch,
    best: list[Candidate],
    origin: dict[str, Any],
) -> None:
    """Writes the best architectures, random ones, every scored one, and the rounds."""
    payload = {
        "results": [candidate.to_json() for candidate in best],
        "random": random_baselines(section, search),
        "scored": [{**c.to_json(), "round": c.round} for c in search.scored()],
        "limits": dataclasses.asdict(search.limits),
        "rounds": [
            {
                "round": one.number,
                "num_scored": len(one.candidates),
                "num_batches": one.num_batches,
                "space": one.space.to_json(),
                "dropped": [list(pair) for pair in one.dropped],
            }
            for one in search.rounds
        ],
        "supernet_digest": origin["supernet_digest"],
        "origin": origin,
        "settings": to_tree(section),
    }
    write_record(file, SCHEMA, payload)
