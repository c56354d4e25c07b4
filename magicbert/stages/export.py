"""``magicbert export``: the retrained model as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.extraction import extract
from magicbert.bert.saving import load_supernet
from magicbert.bert.supernet import EncoderSupernet
from magicbert.comparison.recorded import RESULTS
from magicbert.config.reading import read_yaml
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import RunSection
from magicbert.data.manifest import read_manifest
from magicbert.data.verification import verify_tokenizer
from magicbert.errors import UserError
from magicbert.export.card_records import RunFacts
from magicbert.export.huggingface import write_export
from magicbert.export.model_card import CardFacts, model_card
from magicbert.export.onnx_packages import require_onnx
from magicbert.export.provenance import read_provenance
from magicbert.finetune.grid import RESULTS_SCHEMA
from magicbert.finetune.pretrained import folder_identity
from magicbert.records import read_record
from magicbert.run_lock import alone_in
from magicbert.space import Architecture
from magicbert.stages import export_onnx
from magicbert.trail import run_folder, stage_folder

LOGGER = logging.getLogger("magicbert")


def run(config: ExportConfig) -> None:
    """Reads ``retrain/model`` and ``prepare/``, writes ``export/`` at the root of the run.

    With ``onnx.enabled`` also ``onnx/``; with ``onnx.model`` that alone, of the model it names.

    Raises:
        UserError: a stage before this one is missing, or its files do not belong together.
    """
    if config.onnx.enabled:
        require_onnx()
    if not config.onnx.model:
        folder = stage_folder(config.run, "export")
        with alone_in(folder):
            export_to(folder, config)
    if config.onnx.enabled:
        export_onnx.run(config)


def export_to(folder: Path, config: ExportConfig) -> None:
    """Exports to a folder that no other process writes."""
    prepared = run_folder(config.run) / "prepare"
    manifest = read_manifest(prepared)
    verify_tokenizer(prepared, manifest)
    supernet, _ = load_supernet(trained_model(config.run))
    if supernet.config.vocab_size != manifest.vocab_size:
        raise UserError(
            f"the model has {supernet.config.vocab_size} tokens and {prepared} has "
            f"{manifest.vocab_size}: it was trained on other data; retrain it"
        )
    model = extract(supernet, only_architecture(supernet))
    architecture = Architecture.parse(model.config.architecture)
    stage = stage_folder(config.run, "retrain")
    provenance = read_provenance(stage, manifest)
    if not provenance.result.get("finished", False):
        LOGGER.warning("the retraining is not finished: exporting what it has saved")
    facts = CardFacts(
        name=f"{config.run.name}-{config.run.label}" if config.run.label else config.run.name,
        license=config.license,
        language=config.language,
        config=model.config,
        architecture=architecture,
        costs=bert_cost_model(model.config, architecture, manifest.length),
        length=manifest.length,
        run=RunFacts(manifest, settings_of(stage)),
        provenance=provenance,
    )
    origin = dataclasses.asdict(provenance)
    write_export(folder, model, prepared / "tokenizer", model_card(facts), origin)
    if scores := recorded_scores(config.run, folder):
        known = dataclasses.replace(facts, run=dataclasses.replace(facts.run, scores=scores))
        write_export(folder, model, prepared / "tokenizer", model_card(known), origin)
    LOGGER.info("exported %s to %s", architecture, folder)


def settings_of(stage: Path) -> dict[str, Any]:
    """Returns the resolved configuration of a stage; empty if it left none."""
    file = stage / "config.yaml"
    return read_yaml(file) if file.is_file() else {}


def recorded_scores(run: RunSection, folder: Path) -> list[dict[str, Any]]:
    """Returns the summary of the run's fine-tuning, if it was of the model in ``folder``."""
    file = stage_folder(run, "finetune") / RESULTS
    if not file.is_file():
        return []
    record = read_record(file, RESULTS_SCHEMA)
    if record["model_identity"] != folder_identity(folder):
        LOGGER.warning("%s is of another model: its scores are not in the card", file)
        return []
    return list(record["summary"])


def trained_model(run: RunSection) -> Path:
    """Returns the folder of the retrained model.

    Raises:
        UserError: there is none; the message lists the labels that have one.
    """
    folder = stage_folder(run, "retrain") / "model"
    if folder.is_dir():
        return folder
    stages = sorted(path.parent.name for path in run_folder(run).glob("retrain*/model"))
    others = f"; this run has {', '.join(stages)}: set run.label" if stages else ""
    raise UserError(f"{folder}: no retrained model; run `magicbert retrain` first{others}")


def only_architecture(supernet: EncoderSupernet) -> Architecture:
    """Returns the one path of a retrained model; raises `UserError` if there are several."""
    if supernet.space.count() != 1:
        raise UserError(
            f"the model holds {supernet.space.count()} architectures; only a retrained model "
            "of one architecture can be exported"
        )
    return Architecture(tuple(names[0] for names in supernet.space.layers))
