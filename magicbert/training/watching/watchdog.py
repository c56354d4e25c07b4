"""Ends a rank that is stuck, with a word about which rank keeps all of them waiting."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from magicbert.config.sections import LaunchSection
from magicbert.training.watching.exit_codes import EXIT_HUNG
from magicbert.training.watching.heartbeat import FOLDER, PULSE, Heartbeat, HeartbeatFile
from magicbert.training.watching.peers import Finding, Peers

# Beats per shortest limit; seconds between beats at most and at least.
BEATS_PER_LIMIT, SLOWEST_BEAT, FASTEST_BEAT = 10, 5.0, 0.25
SILENT_BEATS = 4
# Between asking a stuck process for its stacks and ending it.
SECONDS_FOR_STACKS = 0.5
ALL_ALIVE = "every other rank is alive and as far; is the network between the hosts whole?"


OPTIONS = {
    "join": "join_minutes",
    "start": "start_minutes",
    "step": "step_minutes",
    "evaluate": "evaluate_minutes",
    "save": "save_minutes",
    "finish": "save_minutes",
}


def phase_limits(launch: LaunchSection) -> dict[str, float]:
    """Returns the seconds that each phase may take; in phase ``step``, each step."""
    return {phase: 60.0 * getattr(launch, option) for phase, option in OPTIONS.items()}


def beat_seconds(limits: Mapping[str, float]) -> float:
    """Returns the time between two heartbeats."""
    return min(max(min(limits.values()) / BEATS_PER_LIMIT, FASTEST_BEAT), SLOWEST_BEAT)


class Watchdog:
    """A thread that beats, and ends the process when `PULSE` stays in a phase for too long.

    A process whose interpreter lock is held cannot run this thread. For that case every beat winds
    up a timer of `faulthandler`, which needs no lock: it writes the stacks and ends the process.

    Use as a context manager.

    Args:
        folder: the stage's folder.
        rank: this process.
        num_ranks: number of processes.
        limits: phase -> seconds.
    """

    def __init__(
        self, folder: Path, rank: int, num_ranks: int, limits: Mapping[str, float]
    ) -> None:
        self.folder, self.rank, self.limits = folder, rank, limits
        self.seconds = beat_seconds(limits)
        self.stacks_path = folder / f"hang-rank-{rank}.txt"
        self.file = HeartbeatFile(folder / FOLDER, Heartbeat.first(rank, num_ranks))
        patience = SILENT_BEATS * self.seconds
        self.peers = Peers(folder / FOLDER, num_ranks, patience, time.time())
        self.is_expiring = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="magicbert-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._stacks: TextIO = self.stacks_path.open("w")
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGUSR1)
        self._stacks.close()
        if not self.stacks_path.stat().st_size:
            self.stacks_path.unlink()

    def say_last_word(self, code: int, word: str = "") -> None:
        """Tells the others that this rank leaves, and why."""
        self.file.write(code, word)

    def _watch(self) -> None:
        while not self._stopped.wait(self.seconds):
            self.file.write()
            limit, spent = self.limits[PULSE.phase], PULSE.seconds
            self._wind_up(limit - spent)
            if spent > limit - 2 * (SILENT_BEATS + 1) * self.seconds:
                self.peers.look()
            if spent > limit:
                self._expire(limit)

    def _wind_up(self, seconds_left: float) -> None:
        seconds = max(seconds_left, 0.0) + 2 * SILENT_BEATS * self.seconds
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stacks)

    def _expire(self, limit: float) -> None:
        """Writes down everything, ends frozen ranks on this host, and leaves."""
        self.is_expiring = True
        findings = self.peers.findings(own=self.rank)
        text = self.describe(limit, findings)
        self._stacks.write(f"{text}\n\n")
        self._stacks.flush()
        faulthandler.dump_traceback(file=self._stacks, all_threads=True)
        print(f"magicbert: {text}", file=sys.stderr, flush=True)
        self.file.write(EXIT_HUNG, text)
        end_frozen(findings)
        os._exit(EXIT_HUNG)

    def describe(self, limit: float, findings: list[Finding]) -> str:
        """Says what took too long and who is the cause."""
        causes = "; ".join(finding.text for finding in findings[:4])
        return (
            f"rank {self.rank}: phase {PULSE.phase} at step {PULSE.step} has taken more than "
            f"launch.{OPTIONS[PULSE.phase]} = {limit / 60:.3g}: "
            f"{causes or ALL_ALIVE}. Stacks: {self.stacks_path}"
        )


def end_frozen(findings: list[Finding]) -> None:
    """Ends frozen ranks of this host, which no SIGTERM of a launcher would reach.

    A stopped process writes its stacks to its own file if it is ever continued; one whose
    interpreter is held writes them at once.
    """
    frozen = [f.beat for f in findings if f.is_frozen and f.beat is not None and f.beat.is_here]
    for number, pause in ((signal.SIGUSR1, SECONDS_FOR_STACKS), (signal.SIGKILL, 0.0)):
        for beat in frozen:
            if beat.state:
                os.kill(beat.pid, number)
        time.sleep(pause if frozen else 0.0)
