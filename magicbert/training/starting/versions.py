"""The DeepSpeed versions that the path-sparse optimizers were proven on."""

from __future__ import annotations

from importlib import metadata

from magicbert.errors import UserError

TESTED_VERSIONS = ("0.19.8",)


def check_deepspeed_version() -> None:
    """Refuses a DeepSpeed whose internals may differ from those extended here.

    Raises:
        UserError: DeepSpeed is missing or of a version that was not tested.
    """
    tested = ", ".join(TESTED_VERSIONS)
    try:
        found = metadata.version("deepspeed")
    except metadata.PackageNotFoundError as error:
        raise UserError(f"deepspeed is not installed; install deepspeed=={tested}") from error
    if found.split("+")[0] not in TESTED_VERSIONS:
        raise UserError(
            f"deepspeed {found} is installed, but training extends DeepSpeed's ZeRO optimizers and "
            f"is proven on: {tested}. Install one of these (pip install deepspeed=={tested})."
        )
