"""How a kept model was fine-tuned on SQuAD, as its own record says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.bert.exported import MANIFEST, SCHEMA
from magicbert.config.sections import SquadSection
from magicbert.errors import UserError
from magicbert.finetune.squad.squad_data import SquadData, describe_questions
from magicbert.finetune.squad.task import SQUAD_TASKS, SquadTask
from magicbert.records import read_record

RECORDED = ("max_length", "overlap", "max_question_tokens", "max_answer_tokens", "num_best")
LENT = "dev_articles_in_training"


@dataclass(frozen=True)
class RecordedSquad:
    """The fine-tuning of a kept model.

    Attributes:
        task: name of the task.
        settings: how windows were cut and answers found, by the names of `SquadSection`.
        dev: the record of its dev questions.
    """

    task: str
    settings: Mapping[str, Any]
    dev: Mapping[str, Any]

    def section(self, task: SquadTask, given: SquadSection) -> SquadSection:
        """Returns a section with everything that is recorded, the rest as it is given.

        Articles that were trained on count for the same task alone: another one has another file.

        Raises:
            UserError: an option is given that differs from what is recorded.
        """
        default = SquadSection()
        known = {
            name: value
            for name, value in self.settings.items()
            if name != LENT or task.name == self.task
        }
        for name, value in known.items():
            wanted = getattr(given, name)
            if wanted not in (value, getattr(default, name)):
                raise UserError(
                    f"squad.{name}: {wanted}, and the model was fine-tuned with {value}; to ask it "
                    "otherwise, set onnx.as_finetuned false"
                )
        return dataclasses.replace(given, **known)

    def is_scored_on(self, data: SquadData) -> bool:
        """Returns whether these are the dev questions that its recorded score is of."""
        return data.task.name == self.task and describe_questions(data.dev) == self.dev


def read_recorded_squad(folder: Path) -> RecordedSquad | None:
    """Returns how a model was fine-tuned; ``None`` if it does not say, or not on SQuAD.

    Raises:
        UserError: its record is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return None
    provenance = read_record(folder / MANIFEST, SCHEMA)["provenance"]
    if provenance.get("cell", {}).get("task") not in SQUAD_TASKS:
        return None
    settings = provenance["settings"]
    lent = len(settings["rows"].get(LENT, ()))
    return RecordedSquad(
        task=provenance["cell"]["task"],
        settings={LENT: lent, **{name: settings[name] for name in RECORDED}},
        dev=settings["rows"]["dev"],
    )
