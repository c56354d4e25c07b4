"""Row A7: what killed processes leave behind does not keep the next start from its work."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

from forked_ranks import rank_server
from matrix import Finding, mutant, row
from saving_trials import Saving, recovers

from magicbert.config.sections import LaunchSection
from magicbert.errors import UserError
from magicbert.run_lock import alone_in, lock_file
from magicbert.training.starting.launching import host_command
from magicbert.training.starting.operator_build import PATIENCE_SECONDS, clear_stale_lock

MOST_SECONDS = 30.0


def half_written(folder: Path, mutant: str) -> bool:
    """Half-written and half-removed checkpoints: swept by the next start, which saves again."""
    root, trial = Saving(folder).start("whole")
    trial.results()
    for name in ("step-6.tmp-0123456789ab", "step-2.trash-0123456789ab"):
        shutil.copytree(root / "step-4", root / name)
        (root / name / "manifest.json").unlink()
    return recovers(root, folder, mutant)


def lock_of_the_dead(folder: Path) -> bool:
    """The lock file of a process that was killed: the next one gets in."""
    lock_file(folder / "stage").write_text("process 1 on nowhere")
    with alone_in(folder / "stage"):
        return True


def torch_lock(folder: Path, is_thorough: bool) -> bool:
    """The lock of a build that was killed: removed after a while."""
    (folder / "lock").touch()
    clear_stale_lock(folder / "lock", PATIENCE_SECONDS if is_thorough else 0.2)
    return not (folder / "lock").exists()


def taken_port() -> bool:
    """A port that is in use: refused with its number before anything starts."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        try:
            host_command(LaunchSection(num_ranks=2, master_port=port), 2)
        except UserError as error:
            return f"launch.master_port: {port}" in str(error)
    return False


@row(
    "A7",
    fault="half-written checkpoints, locks of dead processes (ours, torch's), a port in use",
    expected="a start within 30 s, or one line that names what is in the way",
    tier="P",
)
def leftovers(folder: Path, is_thorough: bool, mutant: str = "") -> Finding:
    rank_server()  # its start is no part of the time
    seconds, found = [], {}
    checks = {
        "checkpoints": lambda: half_written(folder / "checkpoints", mutant),
        "own lock": lambda: lock_of_the_dead(folder),
        "torch's lock": lambda: torch_lock(folder, is_thorough),
        "port": taken_port,
    }
    for name, check in checks.items():
        start = time.monotonic()
        found[name] = check()
        seconds.append(time.monotonic() - start)
    bad = [name for name, is_right in found.items() if not is_right]
    figure = (
        f"{len(found) - len(bad)} of {len(found)} cleared or named, slowest {max(seconds):.0f} s"
    )
    figure += f"; in the way: {', '.join(bad)}" if bad else ""
    return Finding(not bad and max(seconds) < MOST_SECONDS, figure, len(found))


@mutant("A7", "half-written checkpoints are not swept")
def unswept(folder: Path, is_thorough: bool) -> Finding:
    return leftovers(folder, False, mutant="no sweep")
