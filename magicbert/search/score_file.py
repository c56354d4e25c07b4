"""The scores taken so far, in memory and on disk: a search that is started again goes on.

The search itself is a pure function of its seed and of scores, so with the old scores at hand it
walks the same way again in a moment and continues where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from magicbert.faults import fault
from magicbert.line_file import LineFile
from magicbert.records import write_text_atomically
from magicbert.space import Architecture
from magicbert.supernet.scoring import Score


class ScoreFile:
    """Scores by (architecture, number of dev batches).

    Args:
        path: JSON lines to read, and to write from the first new score on; ``None`` = memory alone.
        origin: what the scores depend on (digests of weights and data, batch size); scores of
            another origin are left out, and their file is replaced.
    """

    def __init__(self, path: Path | None = None, origin: dict[str, Any] | None = None) -> None:
        self.path = path
        self.origin = origin
        self._scores: dict[tuple[Architecture, int], Score] = {}
        self._stream: LineFile | None = None
        lines = read_lines(path) if path is not None else []
        if lines[:1] == [{"origin": origin}]:
            for line in lines[1:]:
                key = Architecture.parse(line["architecture"]), line["num_batches"]
                self._scores[key] = Score(line["loss_sum"], line["correct"], line["count"])

    def __len__(self) -> int:
        return len(self._scores)

    def __getitem__(self, key: tuple[Architecture, int]) -> Score:
        return self._scores[key]

    def get(self, architecture: Architecture, num_batches: int) -> Score | None:
        """Returns a score, or ``None`` if it was never taken."""
        return self._scores.get((architecture, num_batches))

    def add(self, architecture: Architecture, num_batches: int, score: Score) -> None:
        """Keeps a score, on disk too."""
        if self.path is not None and self._stream is None:
            self._stream = self._open(self.path)
        self._scores[architecture, num_batches] = score
        if self._stream is not None:
            self._stream.append(json.dumps(as_line(architecture, num_batches, score)))
        fault("search.score", count=len(self))

    def _open(self, path: Path) -> LineFile:
        """Writes what is known anew (a line cut off by a kill goes), then opens for appending."""
        known = [as_line(*key, score) for key, score in self._scores.items()]
        lines = [json.dumps(line) + "\n" for line in ({"origin": self.origin}, *known)]
        write_text_atomically(path, "".join(lines))
        return LineFile(path)

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def as_line(architecture: Architecture, num_batches: int, score: Score) -> dict[str, Any]:
    """Returns one score as JSON data; floats read back to the same bits."""
    return {
        "architecture": str(architecture),
        "num_batches": num_batches,
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
