"""``magicbert search``: a scorer -> the best architectures under limits."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.reading import to_tree
from magicbert.config.roots import SearchConfig
from magicbert.records import read_record, write_record
from magicbert.report.tables import write_csv
from magicbert.run_lock import alone_in, check_free
from magicbert.search.candidate import Candidate
from magicbert.search.judge import Judge
from magicbert.search.rounds import Round
from magicbert.search.searching import Search
from magicbert.space.randomness import keyed_generator
from magicbert.stages.search_latency import with_latency
from magicbert.stages.search_ranks import decided_by_first, on_ranks
from magicbert.stages.search_scores import close_scores, open_scores
from magicbert.stages.search_subject import Subject, limits_of, open_subject
from magicbert.trail import Trail, stage_folder
from magicbert.training.ranks import Ranks

LOGGER = logging.getLogger("magicbert")
RESULT = "architectures.json"
SCHEMA = "magicbert/architectures/1"
FRONT = "pareto.csv"


def run(config: SearchConfig) -> None:
    """Searches and writes ``architectures.json``; started again, it goes on where it stopped.

    Raises:
        UserError: the scorer is not to be had, or no architecture keeps the limits.
    """
    folder = stage_folder(config.run, "search")
    check_free(folder)
    on_ranks(config, folder, lambda ranks: search_alone(folder, config, ranks))


def search_alone(folder: Path, config: SearchConfig, ranks: Ranks | None) -> None:
    """Searches on this rank while no other process works in the folder."""
    with ExitStack() as stack:
        decided_by_first(ranks, lambda: stack.enter_context(alone_in(folder)))
        search_in(folder, config, ranks)


def search_in(folder: Path, config: SearchConfig, ranks: Ranks | None) -> None:
    """Searches on this rank; the first one writes."""
    subject = with_latency(open_subject(config), config, folder, ranks)
    origin = subject.result_origin
    if decided_by_first(ranks, lambda: is_finished(folder / RESULT, config, origin)):
        LOGGER.info("search is finished already: %s", folder / RESULT)
        return
    scores = open_scores(folder, subject.origin, ranks)
    judge = Judge(subject.choices, subject.evaluate, scores, ranks)
    search = Search(config.search, judge)
    is_writer = ranks is None or ranks.is_first
    with Trail(folder, config, is_writer=is_writer) as trail:
        if len(scores):
            LOGGER.info("search: %d scores of an earlier start are used", len(scores))
        best = search.run(lambda finished: report_round(finished, trail))
        found = Found(best, random_baselines(search), search.front(subject.objectives))
        close_scores(folder, scores, ranks)
        if is_writer:
            write_result(folder, search, found, subject)
        LOGGER.info("best: %s, loss %.4f, %s", best[0].architecture, best[0].loss, best[0].cost)
        LOGGER.info("search finished: %s", folder / RESULT)


@dataclass(frozen=True)
class Found:
    """What a search leaves.

    Attributes:
        best: the result, best first.
        baselines: random architectures within the same limits.
        front: what nothing beats in every figure.
    """

    best: list[Candidate]
    baselines: list[Candidate]
    front: list[Candidate]


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
        len(finished.dropped), finished.num_left,
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
        num_left=finished.num_left,
    )


def random_baselines(search: Search) -> list[Candidate]:
    """Returns architectures drawn uniformly within the limits, scored as the finalists are.

    They are what the winner must beat; in the order in which they were drawn.
    """
    section = search.section
    generator = keyed_generator(section.seed, "random-baselines", 0)
    if not section.num_random:
        return []
    drawn = search.judge.choices.draw(section.num_random, generator)
    number = search.rounds[-1].number
    scored = search.judge(drawn, section.num_final_batches, number)
    by_architecture = {candidate.architecture: candidate for candidate in scored}
    return [by_architecture[architecture] for architecture in drawn]


def write_result(folder: Path, search: Search, found: Found, subject: Subject) -> None:
    """Writes the best architectures, random ones, the front, every scored one, and the rounds."""

    def as_rows(candidates: list[Candidate]) -> list[dict[str, Any]]:
        rows = [candidate.to_json() for candidate in candidates]
        return rows if subject.knows_accuracy else [{**row, "accuracy": None} for row in rows]

    scored, front = search.scored(), as_rows(found.front)
    payload = {
        "results": as_rows(found.best),
        "random": as_rows(found.baselines),
        "pareto": {"objectives": list(subject.objectives), "front": front},
        "scored": [
            {**row, "round": c.round} for row, c in zip(as_rows(scored), scored, strict=True)
        ],
        "limits": dataclasses.asdict(limits_of(search.section)),
        "rounds": [
            {
                "round": one.number,
                "num_scored": len(one.candidates),
                "num_batches": one.num_batches,
                "space": one.space.to_json(),
                "num_left": one.num_left,
                "dropped": [list(pair) for pair in one.dropped],
            }
            for one in search.rounds
        ],
        "latency": subject.latency_error,
        "supernet_digest": subject.origin.get("supernet_digest"),
        "origin": subject.result_origin,
        "settings": to_tree(search.section),
    }
    write_record(folder / RESULT, SCHEMA, payload)
    write_csv(folder / FRONT, tuple(front[0]), [tuple(row.values()) for row in front])
