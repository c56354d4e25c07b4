"""Which checkpoints stay: the newest that verify; what killed runs left behind goes."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from magicbert.faults import fault
from magicbert.training.checkpoints.durable import TRASH, discard, leftovers
from magicbert.training.checkpoints.manifest import problem_of

LOGGER = logging.getLogger("magicbert")
FOLDER_NAME = re.compile(r"step-(0|[1-9][0-9]*)")


def published_steps(root: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, newest first, whole or not."""
    if not root.is_dir():
        return []
    matches = (FOLDER_NAME.fullmatch(path.name) for path in root.iterdir())
    return sorted((int(match[1]) for match in matches if match), reverse=True)


class Retention:
    """Deletes what is no longer wanted, on one rank.

    Args:
        root: the folder of the checkpoints.
        keep: checkpoints kept; one that does not verify is not counted.

    Attributes:
        verified: steps whose checkpoints were verified by this process.
    """

    def __init__(self, root: Path, keep: int) -> None:
        self.root, self.keep = root, keep
        self.verified: set[int] = set()

    def apply(self, newest: int) -> None:
        """Drops all checkpoints older than the ``keep`` newest that verify.

        A failure to look or to delete is a warning: it is no reason to lose a run.

        Args:
            newest: step of a checkpoint that was verified just now; later ones are left alone.
        """
        self.verified.add(newest)
        try:
            self._drop_older(newest)
        except OSError as error:
            LOGGER.warning("%s could not be looked through for old ones: %s", self.root, error)
        self.sweep()

    def _drop_older(self, newest: int) -> None:
        num_kept = 0
        for step in published_steps(self.root):
            if step > newest:
                continue
            if num_kept >= self.keep:
                self._discard(step)
            elif self._verifies(step):
                num_kept += 1

    def _verifies(self, step: int) -> bool:
        """Looks once at each checkpoint that this process has not written itself."""
        if step not in self.verified and problem_of(self.root / f"step-{step}") is None:
            self.verified.add(step)
        return step in self.verified

    def _discard(self, step: int) -> None:
        try:
            fault("save.retention.before", step=step)
            discard(self.root / f"step-{step}")
            fault("save.retention.after", step=step)
        except OSError as error:
            LOGGER.warning("the checkpoint of step %d could not be deleted: %s", step, error)

    def sweep(self) -> None:
        """Removes what killed runs left half written or half removed."""
        try:
            folders = leftovers(self.root)
        except OSError as error:
            LOGGER.warning("%s could not be looked through for leftovers: %s", self.root, error)
            return
        for folder in folders:
            try:
                shutil.rmtree(folder)
            except OSError as error:
                what = "removed" if TRASH in folder.name else "left by a killed run"
                LOGGER.warning("%s, %s, could not be deleted: %s", folder, what, error)
