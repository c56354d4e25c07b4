"""The rows of the comparison table, measured and gathered."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import transformers

from magicbert.comparison.cost import encoder_cost
from magicbert.comparison.forms import FORMS, Lineup, load_timed
from magicbert.comparison.recorded import Recorded, glue_mean, read_recorded
from magicbert.config.sections import ComparedModelSection, CompareSection
from magicbert.errors import UserError
from magicbert.finetune.pretrained import Pretrained, cannot_load, describe_pretrained

Row = dict[str, Any]
CHANGED = "the model is not the one that was fine-tuned: its files have changed since"


def compared_rows(section: CompareSection, lineup: Lineup) -> list[Row]:
    """Returns one row per model; what cannot be known of it is ``None``, with the reason.

    Args:
        section: which models, and what is measured.
        lineup: collects what is timed.

    Raises:
        UserError: a record is missing or damaged, or two of one row do not belong together.
    """
    recorded = [(model, read_recorded(model)) for model in section.models]
    with tempfile.TemporaryDirectory(prefix="magicbert-") as scratch:
        rows = [
            start_row(model, known, section, lineup, Path(scratch) / str(number))
            for number, (model, known) in enumerate(recorded)
        ]
        measured = lineup.measure() if lineup.forms else {}
    for row in rows:
        for form in FORMS:
            times = measured.get((row["name"], form), {})
            row["latency"][form] = None if "wall" not in times else times
            reason = times.get("failed") or lineup.missing.get((row["name"], form))
            if row["latency"][form] is None:
                row["missing"][f"latency, {form}"] = reason or "not measured"
    return rows


def start_row(
    model: ComparedModelSection,
    known: Recorded,
    section: CompareSection,
    lineup: Lineup,
    scratch: Path,
) -> Row:
    """Returns what is known of a model without a clock, and adds its forms to the lineup."""
    row: Row = {
        "name": model.name,
        "kind": model.kind,
        "model": known.source if "/" not in known.source else Path(known.source).name,
        "identity": known.identity,
        "architecture": None,
        "parameters": None,
        "flops": None,
        "latency": {},
        "scores": list(known.scores),
        "glue_mean": glue_mean(known.scores),
        "notes": list(known.notes),
        "missing": {},
    }
    if not known.scores:
        row["missing"]["scores"] = "no fine-tuning is named for it"
    try:
        start = describe_pretrained(known.source, known.source, model.trust_remote_code)
        check_same(start, known)
        measure_model(row, start, section, lineup, scratch)
    except UserError as error:
        reason = str(error)
        row["missing"] |= {"parameters": reason, "flops": reason}
        lineup.miss(model.name, FORMS, reason)
    return row


def check_same(start: Pretrained, known: Recorded) -> None:
    """Raises `UserError` if a model is not the one that was fine-tuned."""
    if known.identity and start.identity != known.identity:
        raise UserError(CHANGED)


def measure_model(
    row: Row, start: Pretrained, section: CompareSection, lineup: Lineup, scratch: Path
) -> None:
    """Adds cost and architecture to a row, and the model's forms to the lineup."""
    trust = start.trust_remote_code
    config = transformers.AutoConfig.from_pretrained(start.source, trust_remote_code=trust)
    cost = encoder_cost(config, section.length, trust_remote_code=trust)
    row |= {
        "architecture": start.architecture or config.model_type,
        "identity": start.identity,
        "parameters": cost.parameters,
        "flops": cost.flops,
    }
    if not section.latency:
        lineup.miss(row["name"], FORMS, "latency was not asked for (compare.latency)")
        return
    try:
        classifier = load_timed(start.source, trust_remote_code=trust)
    except Exception as error:  # from damaged files to classes that do not fit
        raise cannot_load(start.name, error) from error
    if section.onnx:
        scratch.mkdir()
    onnx_folder = scratch if section.onnx else None
    lineup.add_model(row["name"], classifier, start.vocab_size, onnx_folder)
