"""Writes a Hugging Face folder that loads without magicbert."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magicbert.bert.atomic_folder import atomic_folder
from magicbert.bert.exported import CARD, MANIFEST, SCHEMA, digests, modeling_files
from magicbert.bert.modeling.configuration_magicbert import AUTO_MAP
from magicbert.bert.modeling.modeling_magicbert import MagicBertPreTrainedModel
from magicbert.errors import UserError
from magicbert.faults import fault
from magicbert.records import read_record, write_record, write_text_atomically


def write_export(
    folder: Path,
    model: MagicBertPreTrainedModel,
    tokenizer: Path,
    card: str,
    provenance: Mapping[str, Any],
) -> None:
    """Writes weights, configuration, code, tokenizer, card and manifest, all or nothing.

    Args:
        folder: folder to write; an older export there is replaced.
        model: model to save.
        tokenizer: folder of tokenizer files to copy.
        card: text of ``README.md``.
        provenance: kept in the manifest.

    Raises:
        UserError: ``folder`` holds something else than an export, or the tokenizer is missing.
    """
    refuse_to_replace_others(folder)
    tokenizer_files = sorted(path for path in tokenizer.glob("*") if path.is_file())
    if not (tokenizer / "tokenizer.json").is_file():
        raise UserError(f"{tokenizer}: no tokenizer.json; run `magicbert prepare` first")
    with atomic_folder(folder) as aside:
        model.config.auto_map = dict(AUTO_MAP)
        model.save_pretrained(aside)
        for weights in aside.glob("*.safetensors"):
            # safetensors writes for the owner alone; the folder is there to be shared.
            shutil.copymode(aside / "config.json", weights)
            fault("export.write")
        for path in (*modeling_files(), *tokenizer_files):
            shutil.copyfile(path, aside / path.name)
            fault("export.write")
        write_text_atomically(aside / CARD, card)
        payload = {"files": digests(aside), "provenance": dict(provenance)}
        write_record(aside / MANIFEST, SCHEMA, payload)
        fault("export.write")
    fault("export.write")


def refuse_to_replace_others(
    folder: Path, record: str = MANIFEST, schema: str = SCHEMA, kind: str = "an export"
) -> None:
    """Raises `UserError` if a folder that is about to be replaced is not one of ours.

    Args:
        folder: may be missing or empty.
        record: name of the file that marks one of ours.
        schema: of that record.
        kind: what is written there, for the message.
    """
    if not folder.exists():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    try:
        read_record(folder / record, schema)
    except UserError as error:
        raise UserError(
            f"{folder}: is there and is not {kind} of magicbert, so it is not replaced; "
            "move it away, or set run.label"
        ) from error
