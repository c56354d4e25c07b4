"""What one rank, or the process that started the ranks, can say about the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from magicbert.training.watching.exit_codes import MEANINGS
from magicbert.training.watching.heartbeat import Heartbeat, read_heartbeats

# A file of another start of the run is at least so much older than this start.
SECONDS_BETWEEN_STARTS = 30.0


@dataclass(frozen=True)
class Finding:
    """What is wrong with a rank.

    Attributes:
        rank: which.
        text: what is wrong with it.
        beat: its last sign of life, if there was one.
        is_frozen: it cannot speak or act for itself.
        is_gone: it runs no longer.
    """

    rank: int
    text: str
    beat: Heartbeat | None = None
    is_frozen: bool = False
    is_gone: bool = False


class Peers:
    """Watches the heartbeats of all ranks.

    Args:
        folder: of the files.
        num_ranks: how many there should be.
        patience: seconds without a beat after which a rank is called silent.
        since: wall clock at which this start of the run began.
    """

    def __init__(self, folder: Path, num_ranks: int, patience: float, since: float) -> None:
        self.folder, self.num_ranks = folder, num_ranks
        self.patience, self.since = patience, since
        self._seen: dict[int, tuple[int, float]] = {}
        self.beats: dict[int, Heartbeat] = {}

    def look(self) -> None:
        """Reads every file and notes which hearts have beaten since the last look."""
        now = time.monotonic()
        for rank, beat in read_heartbeats(self.folder).items():
            if beat.started < self.since - SECONDS_BETWEEN_STARTS:
                continue
            self.beats[rank] = beat
            if self._seen.get(rank, (-1, 0.0))[0] != beat.count:
                self._seen[rank] = (beat.count, now)

    def silence(self, rank: int) -> float:
        """Returns the seconds since a rank's heart was seen to beat."""
        return time.monotonic() - self._seen[rank][1]

    def findings(self, own: int | None = None) -> list[Finding]:
        """Returns what is wrong with ranks other than ``own``, worst first."""
        ranks = [rank for rank in range(self.num_ranks) if rank != own]
        found = [finding for rank in ranks for finding in self._examine(rank)]
        return found or list(self._stragglers(own))

    def _examine(self, rank: int) -> Iterator[Finding]:
        beat = self.beats.get(rank)
        if beat is None:
            yield Finding(rank, f"rank {rank} has not joined: no heartbeat in {self.folder}")
        elif beat.code is not None:
            yield from self._examine_last_word(beat)
        elif beat.num_ranks != self.num_ranks:
            text = f"{beat.place} expects {beat.num_ranks} ranks instead of {self.num_ranks}"
            yield Finding(rank, text, beat)
        elif beat.is_here and not beat.state:
            yield Finding(rank, f"{beat.place} died, last seen in {beat.work}", beat, is_gone=True)
        elif beat.is_here and beat.state == "T":
            yield Finding(
                rank,
                f"{beat.place} is stopped (SIGSTOP), last seen in {beat.work}",
                beat,
                is_frozen=True,
            )
        elif self.silence(rank) > self.patience:
            text = f"{beat.place} gives no sign of life since {beat.work}"
            yield Finding(rank, text, beat, is_frozen=True)

    def _examine_last_word(self, beat: Heartbeat) -> Iterator[Finding]:
        if beat.code != 0:
            meaning = beat.word or MEANINGS.get(beat.code or 0, "no reason given")
            text = f"{beat.place} left with code {beat.code} in {beat.work}: {meaning}"
            yield Finding(beat.rank, text, beat, is_gone=True)

    def _stragglers(self, own: int | None) -> Iterator[Finding]:
        """Names those that have done less than the others; all hearts beat."""
        if not self.beats:
            return
        most = max(beat.step for beat in self.beats.values())
        for rank, beat in sorted(self.beats.items()):
            if beat.step < most and rank != own:
                yield Finding(rank, f"{beat.place} is behind, in {beat.work}", beat)
