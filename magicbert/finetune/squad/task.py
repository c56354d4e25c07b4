"""The SQuAD tasks as data: version, file names, hub id."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SquadTask:
    """One version of SQuAD, or a set in its format.

    Attributes:
        name: what the user types.
        version: ``1.1`` (every question has an answer) or ``2.0``.
        hub_id: data set on the hub; empty = not there.
    """

    name: str
    version: str
    hub_id: str = ""

    @property
    def main_metric(self) -> str:
        """Returns the name of the metric that ranks models."""
        return "f1"

    @property
    def has_unanswerable(self) -> bool:
        """Returns whether some questions have no answer."""
        return self.version == "2.0"

    @property
    def starts_from(self) -> str:
        """Returns the task whose fine-tuned weights this one may start from; empty = none."""
        return "squad" if self.name == "squad_v2" else ""

    def stem(self, split: str) -> str:
        """Returns the name of the file of a split, without its ending."""
        return f"{split}-v{self.version}"


SQUAD = SquadTask("squad", "1.1", "rajpurkar/squad")
SQUAD_V2 = SquadTask("squad_v2", "2.0", "rajpurkar/squad_v2")
EMBEDDED_SQUAD = SquadTask("embedded_squad", "2.0")
SQUAD_TASKS = {task.name: task for task in (SQUAD, SQUAD_V2, EMBEDDED_SQUAD)}
