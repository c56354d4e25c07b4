"""The process that started the ranks: it waits, watches their hearts, and says how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from magicbert.training.watching.exit_codes import (
    EXIT_HUNG,
    EXIT_INTERRUPTED,
    EXIT_LOST_RANK,
    EXIT_TERMINATED,
)
from magicbert.training.watching.heartbeat import FOLDER, Heartbeat, file_of
from magicbert.training.watching.interruption import ECHO_SECONDS
from magicbert.training.watching.peers import Peers
from magicbert.training.watching.watchdog import SILENT_BEATS, beat_seconds, end_frozen

# The ranks name a frozen one themselves, as long as one of them can; this process comes after.
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.25


class Supervisor:
    """Waits for a launcher that was started on this host.

    Args:
        process: the launcher.
        folder: the stage's folder, with the heartbeats of this start.
        num_ranks: ranks that the launcher starts on this host; the ranks themselves know of all.
        limits: phase -> seconds.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        folder: Path,
        num_ranks: int,
        limits: Mapping[str, float],
    ) -> None:
        self.process, self.limits = process, limits
        patience = SILENT_BEATS * beat_seconds(limits)
        self.peers = Peers(folder / FOLDER, num_ranks, patience, time.time())
        self.signals: list[float] = []
        self.former: dict[int, Any] = {}
        self.has_ended_silent = False

    def listen(self) -> None:
        """Passes signals on from now on, until `wait` is over."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        self.former = {number: signal.signal(number, self.pass_on) for number in numbers}

    def wait(self) -> int:
        """Returns the exit code of the whole, once the launcher has ended."""
        try:
            while self.process.poll() is None:
                time.sleep(POLL_SECONDS)
                self.look()
                self.end_silent()
        finally:
            for number, handler in self.former.items():
                signal.signal(number, handler)
        self.look()
        return self.verdict(self.process.returncode)

    def look(self) -> None:
        """Reads the heartbeats, those of other hosts too where they lie in the same folder."""
        self.peers.look()
        counts = [beat.num_ranks for beat in self.peers.beats.values()]
        self.peers.num_ranks = max(counts, default=self.peers.num_ranks)

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """Tells the ranks; a launcher would give them 30 seconds to save, one after the other."""
        now = time.monotonic()
        if self.signals and now - self.signals[-1] < ECHO_SECONDS:
            return
        self.signals.append(now)
        here = self.living()
        for beat in here:
            os.kill(beat.pid, signal.SIGTERM)
        if not here:
            self.process.send_signal(signal.SIGTERM)

    def living(self) -> list[Heartbeat]:
        """Returns the ranks that run on this host now."""
        self.look()
        beats = self.peers.beats.values()
        return [beat for beat in beats if beat.is_here and beat.code is None and beat.state]

    def end_silent(self) -> None:
        """Ends all ranks here when one has been silent for longer than its phase may take."""
        silent = [
            beat
            for beat in self.living()
            if self.peers.silence(beat.rank) > self.limits[beat.phase] + GRACE_SECONDS
        ]
        if not silent:
            return
        findings = [f for f in self.peers.findings() if f.is_frozen]
        for finding in findings:
            print(f"magicbert: {finding.text}", file=sys.stderr, flush=True)
        file = file_of(self.peers.folder, silent[0].rank)
        print(f"magicbert: ending all ranks here; see {file}", file=sys.stderr, flush=True)
        self.has_ended_silent = True
        end_frozen(findings)

    def verdict(self, code: int) -> int:
        """Returns the code to leave with, from the launcher's and the ranks' last words."""
        words = [beat.code for beat in self.peers.beats.values() if beat.code is not None]
        dead = [f for f in self.peers.findings() if f.is_gone and f.beat and f.beat.code is None]
        if self.signals:
            return self.verdict_on_stop(words, bool(dead))
        if self.has_ended_silent:
            return EXIT_HUNG
        if not code:
            return 0
        for finding in dead:
            print(f"magicbert: {finding.text}", file=sys.stderr, flush=True)
        causes = [word for word in words if word not in (0, EXIT_LOST_RANK)]
        if causes:
            return EXIT_HUNG if EXIT_HUNG in causes else causes[0]
        return EXIT_LOST_RANK if dead or words else code

    def verdict_on_stop(self, words: list[int], has_dead: bool) -> int:
        """Returns the code after a signal: 75 only if nothing that was trained is lost."""
        if not words:
            text = "stopped before the ranks had begun; give the same command again"
            print(f"magicbert: {text}", file=sys.stderr, flush=True)
        if EXIT_TERMINATED in words:
            return EXIT_TERMINATED
        if all(word in (0, EXIT_INTERRUPTED) for word in words) and not has_dead:
            return EXIT_INTERRUPTED
        return next((word for word in words if word not in (0, EXIT_INTERRUPTED)), EXIT_LOST_RANK)


def clear_heartbeats(folder: Path) -> None:
    """Removes what the ranks of an earlier start left."""
    for file in (folder / FOLDER).glob("rank-*.json"):
        file.unlink(missing_ok=True)
