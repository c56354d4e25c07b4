"""Whether a checkpoint belongs to this run: configuration, space and data must be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from magicbert.errors import UserError
from magicbert.records import digest_of

# They change what is written or when, or where state lies, not what is computed. The state of a
# checkpoint is cut anew for other ranks, another ZeRO stage or offload.
HARMLESS = (
    "run.",
    "launch.",
    "training.zero_stage",
    "training.offload_optimizer",
    "training.log_every",
    "training.evaluate_every",
    "training.num_eval_batches",
    "training.num_eval_paths",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.max_minutes",
    "training.max_skips_",
    "training.check_replicas_every",
    "training.probe_interference_every",
)
SHOWN_LENGTH = 60


@dataclass(frozen=True)
class RunIdentity:
    """What must not change between the starts of one run.

    Attributes:
        values: dotted path -> JSON value; the configuration and facts such as the space.
        facts: those of them that are not configuration.
    """

    values: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], facts: Mapping[str, Any]) -> RunIdentity:
        """Flattens a resolved configuration and adds facts about space and data."""
        return cls({**dict(flatten(config)), **facts}, facts)

    @property
    def config_digest(self) -> str:
        """Digest of the configuration, harmless options left out."""
        paths = self.values.keys() - self.facts.keys()
        return digest_of({p: self.values[p] for p in paths if not self._is_harmless(p)})

    @property
    def data_digest(self) -> str:
        """Digest of the facts about space and data."""
        return digest_of(dict(self.facts))

    def check(self, other: Mapping[str, Any], source: str) -> None:
        """Compares with the identity that a checkpoint carries.

        Raises:
            UserError: with one line per difference.
        """
        differences = list(self.differences(other))
        if differences:
            lines = "\n".join(f"  - {line}" for line in differences)
            raise UserError(
                f"{source} is a checkpoint of another space or another config "
                f"(then -> now):\n{lines}\n"
                "Give the old values back, or another run.name or run.label."
            )

    def differences(self, other: Mapping[str, Any]) -> Iterator[str]:
        """Yields what differs, harmless options left out."""
        for path in sorted(self.values.keys() | other.keys()):
            then, now = other.get(path), self.values.get(path)
            if then != now and not self._is_harmless(path):
                yield f"{path}: {shown(then)} -> {shown(now)}"

    def _is_harmless(self, path: str) -> bool:
        if path == "training.num_steps":
            # A longer run changes no step that was made, if the rate does not depend on its end.
            return bool(self.values.get("optimizer.schedule") == "constant")
        return path.startswith(HARMLESS)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested mappings with their dotted paths."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shown(value: Any) -> str:
    """Returns a value for a message, cut where it is long."""
    text = "(absent)" if value is None else str(value)
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 3] + "..."
