"""What stands around a rank from its start to its end: watchdog, signals, and its last word."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magicbert.config.sections import LaunchSection
from magicbert.errors import UserError
from magicbert.training.ranks import AgreedError
from magicbert.training.watching.exit_codes import EXIT_LOST_RANK
from magicbert.training.watching.interruption import listening_from_the_start
from magicbert.training.watching.peers import Finding
from magicbert.training.watching.watchdog import Watchdog, phase_limits

# The first rank finds the same mistake and prints it; the launcher ends all ranks at the first
# exit, so the others wait for that.
SECONDS_FOR_FIRST_RANK = 3.0
# A process that was killed is seen to be gone within this time.
SECONDS_FOR_OBITUARY = 3.0


@contextmanager
def guarded(folder: Path, rank: int, num_ranks: int, launch: LaunchSection) -> Iterator[None]:
    """Runs the block as a rank; however it ends, the others and the launcher are told why.

    Args:
        folder: the stage's folder.
        rank: this process.
        num_ranks: number of processes.
        launch: limits of the phases.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a crash in native code shows where
    folder.mkdir(parents=True, exist_ok=True)
    with Watchdog(folder, rank, num_ranks, phase_limits(launch)) as watchdog:

        def leave(code: int, word: str = "") -> None:
            watchdog.say_last_word(code, word)
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)

        with listening_from_the_start(leave):
            try:
                yield
                watchdog.say_last_word(0)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
                watchdog.say_last_word(code)
                if num_ranks == 1:
                    raise
                # Launchers send SIGTERM to the others as soon as one rank has left: the code
                # stands only if the handlers stay in place to the end.
                leave(code)
            except UserError as error:
                watchdog.say_last_word(error.exit_code, str(error))
                if rank == 0:
                    raise
                leave_after_the_first(watchdog, rank, error)
            except Exception as error:
                if num_ranks == 1:
                    raise
                if watchdog.is_expiring:
                    # A collective broke because the watchdogs end the ranks; ours has the word.
                    threading.Event().wait()
                code, word = explain(watchdog, rank, error)
                leave(code, word)


def leave_after_the_first(watchdog: Watchdog, rank: int, error: UserError) -> None:
    """Ends another rank than the first, which says the same unless only this one is wrong."""
    time.sleep(SECONDS_FOR_FIRST_RANK)
    watchdog.peers.look()
    first = watchdog.peers.beats.get(0)
    if not isinstance(error, AgreedError) and (first is None or first.code != error.exit_code):
        print(f"magicbert: rank {rank}: {error}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)


def explain(watchdog: Watchdog, rank: int, error: Exception) -> tuple[int, str]:
    """Says on standard error why a rank ends; returns exit code and last word.

    A collective that fails because another rank has died is that rank's matter: no traceback.
    """
    dead = find_dead(watchdog) if isinstance(error, RuntimeError) else []
    if dead:
        text = "; ".join(finding.text for finding in dead)
        print(f"magicbert: rank {rank} ends: {text}", file=sys.stderr, flush=True)
        return EXIT_LOST_RANK, f"lost {text}"
    traceback.print_exception(error)
    return 1, f"{type(error).__name__}: {error}"


def find_dead(watchdog: Watchdog) -> list[Finding]:
    """Returns the ranks that are gone, the cause before those that followed it."""
    deadline = time.monotonic() + SECONDS_FOR_OBITUARY
    while time.monotonic() < deadline:
        watchdog.peers.look()
        found = [f for f in watchdog.peers.findings(watchdog.rank) if f.is_gone]
        if found:
            causes = [f for f in found if f.beat is None or f.beat.code != EXIT_LOST_RANK]
            return causes or found
        time.sleep(0.2)
    return []
