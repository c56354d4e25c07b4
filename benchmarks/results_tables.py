"""The tables of a run's results page, each from the records of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from magicbert.comparison.table import markdown
from magicbert.export.onnx_folder import FORM_TITLES
from magicbert.markdown import markdown_table
from magicbert.report.reading import RunRecords, StageRecord

# Of the architectures that a search or a compression ranked, so many are shown.
NUM_SHOWN = 5
# Per stage that ranks architectures: title, what the loss is one of, what was counted.
RANKED = {
    "search": ("Search", "loss, inherited weights", "scores"),
    "compress": (
        "Compression", "loss, blocks put together", "models with the least sums of block losses run"
    ),
}  # fmt: skip


def model_name(record: StageRecord) -> str:
    """Returns what a trained model is called on the page."""
    if record.stage == "pretrain":
        return f"supernet {record.label}".rstrip()
    return record.label or record.stage


def is_masked(record: StageRecord) -> bool:
    """Says whether a model predicts masked tokens: its loss is one per masked token."""
    return (record.result or {}).get("objective", "mlm") == "mlm"


def training_table(run: RunRecords) -> str:
    """Returns the table of what was trained and how well it predicts."""
    head = ("model", "architecture", "parameters", "steps", "tokens", "valid loss", "accuracy")
    trained = (*run.finished("pretrain"), *run.finished("retrain"))
    rows, notes = [], []
    for record in trained:
        result = record.result or {}
        num_paths = record.config["training"]["num_eval_paths"]
        architecture = result["architecture"]
        rows.append((
            model_name(record),
            f"`{architecture}`" if architecture else f"mean of {num_paths} random paths",
            f"{result['parameters']:,}",
            f"{result['steps']:,}",
            f"{result['tokens'] / 1e6:.1f} M",
            f"{result['valid_loss']:.3f}" + ("" if is_masked(record) else " (RTD)"),
            f"{100 * result['valid_accuracy']:.1f} %",
        ))  # fmt: skip
        if record.stage == "pretrain" and is_masked(record):
            gap = result["unigram_entropy"] - result["valid_loss"]
            notes.append(
                f"\n\nUnigram entropy of the masked valid targets: {result['unigram_entropy']:.3f} "
                f"nats; the valid loss of {model_name(record)} is **{gap:.3f} nats below** it."
            )
    if not all(map(is_masked, trained)):
        notes.append(
            "\n\nLosses and accuracies marked RTD are those of the discriminator, per token; the "
            "others are per masked token."
        )
    return section("Training", head, rows) + "".join(notes)


def ranked_tables(run: RunRecords) -> Iterator[str]:
    """Yields a table per search and compression, of the best architectures it found."""
    for stage, (title, loss, counted) in RANKED.items():
        for record in run.finished(stage):
            result = record.result or {}
            if not result["results"]:
                continue
            head = ("rank", "architecture", "parameters", "FLOPs of a row", loss)
            rows = [
                (str(rank), f"`{row['architecture']}`", f"{row['parameters']:,}",
                 f"{row['flops']:,.0f}", f"{row['loss']:.3f}")
                for rank, row in enumerate(result["results"][:NUM_SHOWN], start=1)
            ]  # fmt: skip
            limits = ", ".join(f"{name} {value:,}" for name, value in result["limits"].items()
                               if value)  # fmt: skip
            table = section(f"{title} {record.label}".rstrip(), head, rows)
            yield f"{table}\n\n{len(result['scored'])} {counted}; limits: {limits or 'none'}."


def score_table(run: RunRecords) -> str:
    """Returns the table of fine-tuning scores, a column per model."""
    models = scores_by_model(run)
    if not models:
        return ""
    tasks = {row["task"]: row["metric"] for rows in models.values() for row in rows}
    rows = [
        (task, metric, *(score_cell(summary, task) for summary in models.values()))
        for task, metric in tasks.items()
    ]
    glue = [task for task in tasks if not task.startswith("squad")]
    means = [mean_cell(summary, glue) for summary in models.values()]
    if glue:
        rows.append((f"mean of {len(glue)}", "", *means))
    title = "GLUE, dev sets" if len(glue) == len(tasks) else "GLUE and SQuAD, dev sets"
    table = section(title, ("task", "metric", *models), rows)
    return f"{table}\n\nMedian over seeds (lowest to highest), times 100."


def scores_by_model(run: RunRecords) -> dict[str, list[dict[str, Any]]]:
    """Returns a row per task, at its best rate, of every model that was fine-tuned.

    A model may have been fine-tuned in several stages, such as GLUE apart from SQuAD; the first
    of their labels is its name.
    """
    names: dict[str, str] = {}
    scores: dict[str, list[dict[str, Any]]] = {}
    for record in run.finished("finetune"):
        result, label = record.result or {}, record.label or "model"
        name = names.setdefault(result.get("model_identity", label), label)
        scores.setdefault(name, []).extend(result["summary"])
    return scores


def score_cell(summary: Sequence[dict[str, Any]], task: str) -> str:
    """Returns median and range of one task."""
    for row in summary:
        if row["task"] == task:
            low, middle, high = (100 * row[n] for n in ("minimum", "median", "maximum"))
            return f"{middle:.1f} ({low:.1f} to {high:.1f})"
    return "-"


def mean_cell(summary: Sequence[dict[str, Any]], tasks: Sequence[str]) -> str:
    """Returns the mean of the medians of GLUE's tasks, if every one of them was run."""
    medians = [row["median"] for row in summary if row["task"] in tasks]
    return f"{100 * sum(medians) / len(tasks):.1f}" if len(medians) == len(tasks) else "-"


def comparison_table(run: RunRecords) -> str:
    """Returns the comparison of models by cost, latency and scores, as `compare` wrote it."""
    records = run.finished("compare")
    if not records:
        return ""
    return f"## Comparison\n\n{markdown(records[0].result or {})}".rstrip()


def forms_table(run: RunRecords) -> str:
    """Returns the table of what `export --onnx` found: torch, ONNX and int8 of each model."""
    records = run.finished("onnx")
    if not records:
        return ""
    head = ("model", "form", "MB", "dev score", "rows", "largest difference of logits", "ms a call")
    rows = [
        (record.label or "model", FORM_TITLES[name], *form_cells(form, (record.result or {})))
        for record in records
        for name, form in (record.result or {})["forms"].items()
    ]
    notes = dict.fromkeys(note for record in records for note in form_notes(record))
    return f"{section('Forms', head, rows)}\n\nScores are times 100. {' '.join(notes)}"


def form_cells(form: dict[str, Any], result: dict[str, Any]) -> tuple[str, ...]:
    """Returns size, scores, rows, difference and latency of one form."""
    score, metrics = result["score"], form.get("metrics", {})
    names = [name for name in (score["metric"], *score.get("beside", ())) if name in metrics]
    wall = form["milliseconds"]["wall"]
    return (
        f"{form['bytes'] / 1e6:,.2f}",
        ", ".join(f"{name} {100 * metrics[name]:.1f}" for name in names) or "-",
        f"{score['rows']:,}" if names else "-",
        f"{form['largest_difference']:.2g}",
        f"{wall['median']:.2f} ({wall['low']:.2f} to {wall['high']:.2f})",
    )


def form_notes(record: StageRecord) -> Iterator[str]:
    """Yields what one model's forms were scored on and how they were timed."""
    result = record.result or {}
    timing = result["timing"]
    yield (
        f"Milliseconds of a call of {timing['rows']} x {timing['length']} tokens on "
        f"{timing['threads']} threads of {result['machine']['processor']}, median of "
        f"{timing['rounds']} turns taken in rotation, with the 95% interval of the median."
    )
    if result["score"]["source"]:
        yield f"{record.label or 'model'}: {result['score']['source']}."


def stage_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns which commit and configuration stand behind each stage."""
    body = [
        (row["stage"], "-" if row["seconds"] is None else f"{row['seconds']:,.0f}",
         ", ".join(map(str, row["seeds"])), f"`{(row['commit'] or 'unknown')[:12]}`",
         f"`{row['config_sha256'][:12]}`" if row["config_sha256"] else "-")
        for row in rows
    ]  # fmt: skip
    return section("Provenance", ("stage", "seconds", "seeds", "commit", "config sha256"), body)


def section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a heading and a Markdown table."""
    return f"## {title}\n\n{markdown_table(head, rows)}"
