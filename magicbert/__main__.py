"""The program: ``magicbert`` and ``python -m magicbert``."""

from __future__ import annotations

from magicbert.cli import main
from magicbert.leaving import leave_if_joined


def run() -> None:
    """Runs the command line as all that the process does; one that is a rank ends in here."""
    try:
        main()
    except SystemExit as stop:
        leave_if_joined(stop.code if isinstance(stop.code, int) else 1)
        raise
    leave_if_joined(0)


if __name__ == "__main__":
    run()
