"""The scores taken so far, in memory and on disk: a search that is started again goes on.

The search itself is a pure function of its seed and of scores, so with the old scores at hand it
walks the same way again in a moment and continues where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from magicbert.faults import fault
from magicbert.line_file import LineFile
from magicbert.records import write_text_atomically
from magicbert.space import Architecture
from magicbert.supernet.scoring import Score


class ScoreFile:
    """Scores by architecture, one per dev batch from the first batch on.

    Args:
        path: JSON lines to read, and to write from the first new score on; ``None`` = memory alone.
        origin: what the scores depend on (digests of weights and data, batch size); scores of
            another origin are left out, and their file is replaced.
        others: more files to read, such as those that other ranks left.
    """

    def __init__(
        self,
        path: Path | None = None,
        origin: dict[str, Any] | None = None,
        others: Iterable[Path] = (),
    ) -> None:
        self.path = path
        self.origin = origin
        self._scores: dict[Architecture, list[Score]] = {}
        self._order: list[tuple[Architecture, int]] = []
        self._stream: LineFile | None = None
        for file in (*([path] if path is not None else []), *others):
            self._read(file)

    def __len__(self) -> int:
        return len(self._order)

    def known(self, architecture: Architecture) -> tuple[Score, ...]:
        """Returns the scores on the first batches, as many as were ever taken."""
        return tuple(self._scores.get(architecture, ()))

    def items(self) -> Iterator[tuple[Architecture, tuple[Score, ...]]]:
        """Yields every architecture with its scores."""
        return ((architecture, tuple(known)) for architecture, known in self._scores.items())

    def add(self, architecture: Architecture, scores: Iterable[Score]) -> None:
        """Keeps the scores on the batches that follow the known ones, on disk too."""
        for score in scores:
            if self.path is not None and self._stream is None:
                self._stream = self._open(self.path)
            place = self._keep(architecture, score)
            if self._stream is not None:
                self._stream.append(json.dumps(as_line(*place, score)))
            fault("search.score", count=len(self))

    def remember(self, scored: Iterable[tuple[Architecture, Sequence[Score]]]) -> None:
        """Takes over what others know beyond what is known here; written with what follows."""
        for architecture, scores in scored:
            for score in scores[len(self.known(architecture)) :]:
                self._keep(architecture, score)

    def merge(self, scored: Iterable[tuple[Architecture, Sequence[Score]]]) -> None:
        """Adds what others know of architectures beyond what is known here."""
        for architecture, scores in scored:
            self.add(architecture, scores[len(self.known(architecture)) :])

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _keep(self, architecture: Architecture, score: Score) -> tuple[Architecture, int]:
        known = self._scores.setdefault(architecture, [])
        place = architecture, len(known)
        known.append(score)
        self._order.append(place)
        return place

    def _read(self, file: Path) -> None:
        lines = read_lines(file)
        if lines[:1] != [{"origin": self.origin}]:
            return
        for line in lines[1:]:
            architecture = Architecture.parse(line["architecture"])
            if line["batch"] == len(self._scores.get(architecture, ())):
                score = Score(line["loss_sum"], line["correct"], line["count"])
                self._keep(architecture, score)

    def _open(self, path: Path) -> LineFile:
        """Writes what is known anew (a line cut off by a kill goes), then opens for appending."""
        known = [as_line(a, batch, self._scores[a][batch]) for a, batch in self._order]
        lines = [json.dumps(line) + "\n" for line in ({"origin": self.origin}, *known)]
        write_text_atomically(path, "".join(lines))
        return LineFile(path)


def as_line(architecture: Architecture, batch: int, score: Score) -> dict[str, Any]:
    """Returns one score as JSON data; floats read back to the same bits."""
    return {
        "architecture": str(architecture),
        "batch": batch,
        "loss_sum": score.loss_sum,
        "correct": score.correct,
        "count": score.count,
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a file; one cut off by a kill is left out, and what follows it."""
    lines = []
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            lines.append(json.loads(text))
    except (FileNotFoundError, ValueError):
        pass
    return lines
