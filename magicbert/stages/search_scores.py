"""Where the scores of a search stand: one file per rank, of which the first one's is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicbert.search.score_file import ScoreFile
from magicbert.stages.search_ranks import decided_by_first
from magicbert.training.ranks import Ranks

SCORES = "scores.jsonl"
OF_RANK = "scores-{}.jsonl"


def open_scores(folder: Path, origin: dict[str, Any], ranks: Ranks | None) -> ScoreFile:
    """Returns what is known from earlier starts, on any number of ranks.

    A rank writes its scores as soon as it knows them; what others have scored follows at the end
    of the round.

    Args:
        folder: of the search.
        origin: what the scores depend on.
        ranks: all ranks; ``None`` = this process alone.
    """

    def whole() -> ScoreFile:
        return ScoreFile(folder / SCORES, origin, sorted(folder.glob(OF_RANK.format("*"))))

    if ranks is None:
        return whole()
    known = decided_by_first(ranks, lambda: list(whole().items()))
    name = SCORES if ranks.is_first else OF_RANK.format(ranks.rank)
    scores = ScoreFile(folder / name, origin)
    scores.remember(known)
    return scores


def close_scores(folder: Path, scores: ScoreFile, ranks: Ranks | None) -> None:
    """Closes the file; what other ranks wrote is in the first one's, and goes."""
    scores.close()
    if ranks is not None:
        ranks.barrier("scores are written")
    if ranks is None or ranks.is_first:
        for file in folder.glob(OF_RANK.format("*")):
            file.unlink(missing_ok=True)
