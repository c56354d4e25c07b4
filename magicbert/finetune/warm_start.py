"""The best weights fine-tuned on MNLI, kept for the tasks that start from them (RoBERTa 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magicbert.bert.atomic_folder import atomic_folder
from magicbert.errors import UserError
from magicbert.finetune.pretrained import folder_identity
from magicbert.records import read_record, write_record

SCHEMA = "magicbert/finetune-weights/1"
RECORD = "kept.json"


class KeptWeights:
    """A folder with the weights of the best MNLI cell so far.

    Args:
        folder: where they lie.
        model_identity: of the pretrained model; weights of another model do not count.
    """

    def __init__(self, folder: Path, model_identity: str) -> None:
        self.folder = folder
        self.model_identity = model_identity

    def offer(self, model: Any, row: Mapping[str, Any], settings_digest: str) -> None:
        """Keeps a finished model if it is better than the kept one of the same settings."""
        kept = self._read()
        if kept and kept["settings"] == settings_digest and kept["score"] >= row["score"]:
            return
        with atomic_folder(self.folder) as aside:
            model.save_pretrained(aside)
            payload = {
                "model": self.model_identity,
                "settings": settings_digest,
                "score": row["score"],
                "learning_rate": row["learning_rate"],
                "seed": row["seed"],
                "weights": folder_identity(aside),
            }
            write_record(aside / RECORD, SCHEMA, payload)

    def identity(self) -> str:
        """Returns the digest of the kept weights; empty if there are none of this model.

        Raises:
            UserError: they are damaged.
        """
        kept = self._read()
        if kept is None:
            return ""
        identity = folder_identity(self.folder)
        if identity != kept.get("weights", identity):
            raise UserError(f"{self.folder}: damaged; remove it, and mnli's folders in cells/")
        return identity

    def describe(self) -> dict[str, Any] | None:
        """Returns which MNLI cell the kept weights come from, or ``None``."""
        kept = self._read()
        if kept is None:
            return None
        return {name: kept[name] for name in ("learning_rate", "seed", "score")}

    def _read(self) -> dict[str, Any] | None:
        if not (self.folder / RECORD).is_file():
            return None
        kept = read_record(self.folder / RECORD, SCHEMA)
        return kept if kept["model"] == self.model_identity else None
