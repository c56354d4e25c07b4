"""The head of the page, and the fine-tuning section."""

from __future__ import annotations

import html
from typing import Any

from magicbert.report.plots import score_plot, short_count
from magicbert.report.reading import RunRecords, of_winner, winner
from magicbert.report.section import CsvTable, Section, figure, paragraph
from magicbert.report.squad_part import glue_summary, squad_part
from magicbert.report.stacks import strip
from magicbert.report.tables import Mark, Value, table

SUMMARY_FIELDS = (
    "task", "metric", "learning_rate", "median", "minimum", "maximum", "num_seeds",
)  # fmt: skip


def headline(run: RunRecords) -> str:
    """Returns the figures that a reader wants first, and the winner as a strip."""
    tiles = [*_training_tiles(run), *_task_tiles(run)]
    best = winner(run)
    parts = []
    if best is not None:
        tiles.insert(0, ("winner's parameters", short_count(best["parameters"]),
                         f"{short_count(best['flops'])} FLOPs per row"))  # fmt: skip
    if tiles:
        parts.append(f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles)}</div>')
    if best is not None:
        parts.append(f'<div class="strip">{strip(best["architecture"])}</div>')
        parts.append(
            f'<p class="lede">The winner, first layer left: '
            f"<code>{html.escape(best['architecture'])}</code></p>"
        )
    return "\n".join(parts)


def finetuning_section(run: RunRecords) -> Section:
    """Scores of every fine-tuned model: GLUE with one column each, and SQuAD."""
    records = run.finished("finetune")
    summaries = {record.model_name: glue_summary(record.result or {}) for record in records}
    models = {name: summary for name, summary in summaries.items() if summary}
    parts, csv_tables = glue_part(models) if models else ([], [])
    of_squad, of_squad_csv = squad_part(records)
    return Section("finetuning", "Fine-tuning", (*parts, *of_squad), (*csv_tables, *of_squad_csv))


def glue_part(models: dict[str, list[dict[str, Any]]]) -> tuple[list[str], list[CsvTable]]:
    """Returns the table of GLUE with its plot, and the numbers behind it.

    Args:
        models: the summary of each model, by its name.
    """
    head = ("task", "metric", *models)
    tasks = {row["task"]: row["metric"] for rows in models.values() for row in rows}
    rows = [
        [task, metric, *(_score(rows, task) for rows in models.values())]
        for task, metric in tasks.items()
    ]
    if len(tasks) > 1:
        rows.append(["mean of medians", "", *(_mean(rows, tasks) for rows in models.values())])
    note = (
        "Scores on the dev sets, times 100: median, range and number of seeds, at the learning "
        "rate with the best median."
    )
    csv_rows = tuple(
        (name, *(row[field] for field in SUMMARY_FIELDS))
        for name, rows in models.items()
        for row in rows
    )
    caption = "Median (dot) and range over seeds (bar)."
    parts = [table(head, rows), paragraph(note)]
    if len(csv_rows) > 1:
        parts.append(figure(score_plot(models), caption))
    return parts, [CsvTable("finetune", ("model", *SUMMARY_FIELDS), csv_rows)]


def _training_tiles(run: RunRecords) -> list[tuple[str, str, str]]:
    tiles = []
    for record in run.finished("pretrain")[:1]:
        result: dict[str, Any] = record.result or {}
        note = "nats per token that is told replaced or original"
        if result["unigram_entropy"] is not None:
            below = result["unigram_entropy"] - result["valid_loss"]
            side = "below" if below >= 0 else "above"
            note = f"{abs(below):.2f} nats {side} the unigram entropy"
        tiles.append(("supernet, valid loss", f"{result['valid_loss']:.3f}", note))
    retrained = of_winner(run, "retrain")
    if retrained is not None:
        result = retrained.result or {}
        note = f"{result['valid_accuracy']:.1%} of the masked tokens right"
        tiles.append(("retrained, valid loss", f"{result['valid_loss']:.3f}", note))
    return tiles


def _task_tiles(run: RunRecords) -> list[tuple[str, str, str]]:
    record = of_winner(run, "finetune")
    summary = ((record.result if record else None) or {}).get("summary", [])
    if len(summary) == 1:
        row = summary[0]
        note = f"{row['metric']}, {_seeds(row['num_seeds'])}"
        return [(f"fine-tuned on {row['task']}", f"{100 * row['median']:.1f}", note)]
    if summary:
        mean = sum(row["median"] for row in summary) / len(summary)
        return [("fine-tuning, mean score", f"{100 * mean:.1f}", f"{len(summary)} tasks")]
    return []


def _tile(name: str, figure_text: str, note: str) -> str:
    return (
        f'<div class="tile"><span>{html.escape(name)}</span><b>{html.escape(figure_text)}</b>'
        f"<small>{html.escape(note)}</small></div>"
    )


def _score(rows: list[dict[str, Any]], task: str) -> Value:
    for row in rows:
        if row["task"] == task:
            low, high = 100 * row["minimum"], 100 * row["maximum"]
            return Mark(
                f"{100 * row['median']:.1f} <small>{low:.1f}–{high:.1f}, "
                f"{_seeds(row['num_seeds'])}</small>"
            )
    return None


def _mean(rows: list[dict[str, Any]], tasks: dict[str, str]) -> Value:
    medians = {row["task"]: row["median"] for row in rows}
    if set(medians) != set(tasks):
        return None
    return Mark(f"{100 * sum(medians.values()) / len(medians):.1f}")


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
