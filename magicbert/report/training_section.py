"""The sections on data, supernet pretraining and retraining."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from magicbert.report.coverage_part import coverage_figure, coverage_numbers
from magicbert.report.plots import Curve, anchor_plot, loss_plot, short_count
from magicbert.report.reading import RunRecords, StageRecord
from magicbert.report.section import CsvTable, Section, figure, paragraph
from magicbert.report.stacks import stacks
from magicbert.report.tables import Mark, Value, pairs, table
from magicbert.supernet.coverage import Coverage

ANCHOR_HEAD = ("model", "step", "anchor", "score", "challenger", "challenger_score", "replaced")
LOSS_HEAD = ("model", "split", "step", "loss", "alignment")
METHODS = {
    ("uniform", False): "uniform sampling (SPOS)",
    ("magic-t", False): "MAGIC-T",
    ("uniform", True): "MAGIC-A over uniform sampling",
    ("magic-t", True): "MAGIC-AT",
    ("strict-fair", False): "strictly fair sampling",
    ("strict-fair", True): "MAGIC-A over strictly fair sampling",
}


def data_section(run: RunRecords) -> Section:
    """What the models were trained on, and what was left out."""
    parts = []
    for record in run.finished("prepare"):
        manifest = record.result or {}
        parts.append(
            pairs(
                [
                    ("rows of tokens", f"{manifest['num_rows']['train']:,} train"),
                    ("held out", f"{manifest['num_rows']['valid']:,} rows"),
                    ("tokens per row", manifest["length"]),
                    ("tokens", short_count(sum(manifest["num_tokens"].values()))),
                    ("documents", sum(manifest["num_documents"].values())),
                    ("vocabulary", manifest["vocab_size"]),
                    ("layout", manifest["layout"]),
                ]
            )
        )
        skipped = manifest.get("skipped", [])
        if skipped:
            head = ("left out", "reason", "count", "first at")
            rows = ([s["source"], s["reason"], s["count"], s["first"]] for s in skipped)
            parts.append(table(head, rows))
    return Section("data", "Data", tuple(parts))


def pretraining_section(run: RunRecords, coverage: Mapping[str, Coverage]) -> Section:
    """Loss curves of every supernet, its alignment, its anchors, and what was trained how often.

    Args:
        run: all records.
        coverage: of each pretraining that is known, by the name of its folder.
    """
    parts: list[str] = []
    numbers: list[CsvTable] = []
    for record in run.of("pretrain"):
        result = record.result or {}
        parts.append(paragraph(f"{_title(record, run)}{method(record)}{progress(record)}"))
        caption = (
            "Each step trains one sampled path, so the training loss (thin; thick: running mean "
            "over a tenth of it) spreads more than that of a single model."
        )
        if result.get("unigram_entropy") is not None:
            caption += (
                " The dashed line is the entropy of the evaluated targets' frequencies: the least "
                "that a model could reach which knows them and ignores the context."
            )
        alignment = record.series("train", "alignment")
        drawing = loss_plot(
            [_curve(record, "supernet")],
            entropy=result.get("unigram_entropy"),
            alignment=alignment,
        )
        parts += [figure(drawing, caption), *_anchors(record)]
        if record.folder_name in coverage:
            parts.append(coverage_figure(coverage[record.folder_name]))
            numbers.append(coverage_numbers(record.folder_name, coverage[record.folder_name]))
    tables = (*_loss_csv("pretrain", run), *_anchor_csv(run), *numbers)
    return Section("pretraining", "Supernet", tuple(parts), tables)


def retraining_section(run: RunRecords) -> Section:
    """Architectures trained on their own, side by side."""
    records = run.of("retrain")
    if not records:
        return Section("retraining", "Retraining")
    curves = [_curve(record, record.model_name) for record in records]
    parts = [figure(loss_plot(curves), "Each architecture trained on its own.")]
    finished = run.finished("retrain")
    if finished:
        head = ("model", "parameters", "tokens", "valid loss", "accuracy", "minutes")
        parts.append(table(head, [_retrained_row(record) for record in finished]))
    if len(finished) > 1:
        columns = [_column(record) for record in finished]
        caption = "The retrained architectures. Above each: valid loss, parameters."
        parts.append(figure(stacks(columns, [record.model_name for record in finished]), caption))
    parts += [
        paragraph(f"{_title(record, run)}{progress(record)}")
        for record in records
        if not record.is_finished
    ]
    return Section("retraining", "Retraining", tuple(parts), _loss_csv("retrain", run))


def method(record: StageRecord) -> str:
    """Names the pretraining method of a supernet from its configuration."""
    sampling = record.config.get("sampling", {})
    alignment = record.config.get("alignment", {})
    name = METHODS.get((sampling.get("method", ""), bool(alignment.get("enabled"))), "")
    if not name:
        return ""
    changes = f", k = {sampling['num_changes']}" if sampling["method"] == "magic-t" else ""
    weight = f", lambda = {alignment['weight']:g}" if alignment.get("enabled") else ""
    return f"Trained with {name}{changes}{weight}. "


def progress(record: StageRecord) -> str:
    """Says how far a training went."""
    result = record.result
    if result is None:
        return "Not finished: the curve ends where the last run stopped."
    text = (
        f"{result['steps']:,} steps over {short_count(result['tokens'])} tokens in "
        f"{result['seconds'] / 60:.1f} minutes."
    )
    return text if record.is_finished else f"{text} Not finished."


def _title(record: StageRecord, run: RunRecords) -> str:
    return f"{record.folder_name}: " if len(run.of(record.stage)) > 1 else ""


def _curve(record: StageRecord, name: str) -> Curve:
    return Curve(name, record.series("train", "loss"), record.series("valid", "loss"))


def _anchors(record: StageRecord) -> Iterator[str]:
    events = [row for row in record.metrics if row.get("kind") == "anchor"]
    if not events:
        return
    replaced = sum(row["replaced"] for row in events)
    times = "once" if replaced == 1 else f"{replaced} times"
    caption = f"The anchor was replaced {times} in {len(events)} comparisons."
    yield figure(anchor_plot(events), caption)
    last = events[-1]
    kept = last["challenger"] if last["replaced"] else last["anchor"]
    yield paragraph(f"Anchor after step {last['step']:,}: {kept}")


def _anchor_csv(run: RunRecords) -> tuple[CsvTable, ...]:
    """Every comparison of an anchor: when it was replaced, and by what."""
    rows = tuple(
        (record.folder_name, *(row.get(name) for name in ANCHOR_HEAD[1:]))
        for record in run.of("pretrain")
        for row in record.metrics
        if row.get("kind") == "anchor"
    )
    return (CsvTable("pretrain_anchors", ANCHOR_HEAD, rows),) if rows else ()


def _column(record: StageRecord) -> dict[str, Any]:
    result = record.result or {}
    return {**result, "loss": result["valid_loss"]}


def _retrained_row(record: StageRecord) -> list[Value]:
    result: dict[str, Any] = record.result or {}
    return [
        record.model_name, result["parameters"], result["tokens"], result["valid_loss"],
        result["valid_accuracy"], Mark(f"{result['seconds'] / 60:.1f}"),
    ]  # fmt: skip


def _loss_csv(stage: str, run: RunRecords) -> tuple[CsvTable, ...]:
    rows: list[Sequence[Any]] = []
    for record in run.of(stage):
        alignment = dict(zip(*record.series("train", "alignment"), strict=True))
        for split in ("train", "valid"):
            for step, loss in zip(*record.series(split, "loss"), strict=True):
                extra = alignment.get(step) if split == "train" else None
                rows.append((record.folder_name, split, step, loss, extra))
    return (CsvTable(f"{stage}_loss", LOSS_HEAD, tuple(rows)),) if rows else ()
