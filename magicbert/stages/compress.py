"""``magicbert compress``: blocks trained against a teacher, and models chosen from their tables."""

from __future__ import annotations

import importlib

from magicbert.config.roots import CompressConfig


def run(config: CompressConfig) -> None:
    """Runs ``supernet`` or ``select``.

    Raises:
        UserError: configuration, teacher and prepared data do not fit together.
    """
    importlib.import_module(f"magicbert.stages.compress_{config.target}").run(config)
