"""Names and bytes brought to the disk, and folders taken from it, in an order a crash may cut."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from magicbert.errors import UserError

ASIDE, TRASH = ".tmp-", ".trash-"


def discard(folder: Path) -> None:
    """Removes a folder so that no crash leaves a part of it under its name.

    Raises:
        OSError: it could not be removed; what is left bears another name.
    """
    trash = folder.with_name(f"{folder.name}{TRASH}{uuid.uuid4().hex[:12]}")
    folder.rename(trash)
    shutil.rmtree(trash)


def leftovers(root: Path) -> list[Path]:
    """Returns what killed runs left half written or half removed."""
    return sorted([*root.glob(f"step-*{ASIDE}*"), *root.glob(f"step-*{TRASH}*")])


def claim(root: Path) -> None:
    """Makes a folder for checkpoints, and makes sure that files can be written there.

    Raises:
        UserError: it is a symbolic link, not a folder, or not writable.
    """
    if root.is_symlink():
        raise UserError(
            f"{root} is a symbolic link; checkpoints are renamed and deleted only in a folder of "
            "the run itself. Set run.root to the place it leads to."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".probe-{uuid.uuid4().hex[:12]}"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UserError(f"{root}: checkpoints cannot be written there: {error.strerror}") from error
