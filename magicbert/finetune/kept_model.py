"""The best fine-tuned model of a task as a Hugging Face folder, which loads without magicbert."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magicbert.bert.atomic_folder import atomic_folder
from magicbert.bert.exported import MANIFEST, SCHEMA, digests, modeling_files
from magicbert.bert.modeling.configuration_magicbert import (
    AUTO_MAP,
    CUSTOM_PIPELINES,
    MagicBertConfig,
)
from magicbert.finetune.pretrained import Pretrained
from magicbert.records import digest_of, read_record, write_record

# What the pipeline consists of; it is copied beside models of other kinds as well.
PIPELINE_FILES = ("answer_spans.py", "question_answering_pipeline.py")


class KeptModel:
    """A folder with the best model so far, its tokenizer, its code and its record.

    Args:
        folder: where it lies.
        start: the model that fine-tuning started from.
        tokenizer: its tokenizer.
    """

    def __init__(self, folder: Path, start: Pretrained, tokenizer: Any) -> None:
        self.folder = folder
        self.start = start
        self.tokenizer = tokenizer

    def offer(self, model: Any, row: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Keeps a finished model if it is better than the kept one of the same settings.

        Raises:
            UserError: the record of the kept one is damaged.
        """
        digest = digest_of(dict(settings))
        if (self.folder / MANIFEST).is_file():
            kept = read_record(self.folder / MANIFEST, SCHEMA)["provenance"]
            if kept["settings_digest"] == digest and kept["cell"]["score"] >= row["score"]:
                return
        provenance = {
            "stage": "finetune",
            "model": self.start.name,
            "model_identity": self.start.identity,
            "settings_digest": digest,
            "settings": dict(settings),
            "cell": dict(row),
        }
        with atomic_folder(self.folder) as aside:
            self.write(aside, model, row)
            payload = {"files": digests(aside), "provenance": provenance}
            write_record(aside / MANIFEST, SCHEMA, payload)

    def write(self, aside: Path, model: Any, row: Mapping[str, Any]) -> None:
        """Writes weights, configuration, tokenizer and code."""
        is_ours = isinstance(model.config, MagicBertConfig)
        if is_ours:
            model.config.auto_map = dict(AUTO_MAP)
        answers = type(model).__name__.endswith("ForQuestionAnswering")
        if answers:
            model.config.custom_pipelines = dict(CUSTOM_PIPELINES)
            model.config.null_threshold = row.get("null_threshold")
        model.save_pretrained(aside)
        for weights in aside.glob("*.safetensors"):
            # safetensors writes for the owner alone; the folder is there to be shared.
            shutil.copymode(aside / "config.json", weights)
        if self.tokenizer.is_fast:
            # A call leaves its length and stride in the tokenizer; they are not part of the model.
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.save_pretrained(aside)
        for path in modeling_files():
            if is_ours or (answers and path.name in PIPELINE_FILES):
                shutil.copyfile(path, aside / path.name)
