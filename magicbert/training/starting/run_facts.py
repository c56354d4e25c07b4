"""What all ranks must have been started on: one configuration, space, data set and code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from magicbert.records import digest_of
from magicbert.training.ranks import Ranks

# Hosts may mount one folder in different places.
PLACES = ("run.root",)
PACKAGES = ("torch", "deepspeed")


def agree_on_run(ranks: Ranks, identity: Mapping[str, Any]) -> dict[str, str]:
    """Compares what the ranks were started on.

    Args:
        ranks: all ranks.
        identity: dotted path -> value: configuration, space and data of this rank.

    Returns:
        One digest of it all, which goes with the message of every step.

    Raises:
        DisagreementError: with one column per option that differs.
    """
    facts = {name: value for name, value in identity.items() if name not in PLACES}
    facts |= {f"version of {name}": metadata.version(name) for name in PACKAGES}
    facts["code"] = code_digest()
    ranks.exchange("start", facts={name: str(value) for name, value in sorted(facts.items())})
    return {"run": digest_of(facts)[:12]}


def code_digest() -> str:
    """Returns a digest of this package's source files."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
