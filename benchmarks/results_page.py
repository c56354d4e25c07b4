"""Collects a run's records into docs/results: one JSON file, plots, and the tables of its page.

    python benchmarks/results_page.py runs/first-run docs/results/first-run

writes ``first-run.json`` (a row per stage), ``first-run-*.svg``, and renews the part of
``first-run.md`` between the two ``generated`` comments. The words around that part are written by
hand; no figure is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from magicbert.errors import EXIT_USER_ERROR, UserError
from magicbert.markdown import markdown_table
from magicbert.records import digest_of, write_record, write_text_atomically
from magicbert.report.plots import Curve, loss_plot, score_plot, standing_alone
from magicbert.report.reading import RunRecords, StageRecord, read_run, winner
from magicbert.trail import describe_environment

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
SCHEMA = "magicbert/results/1"


def main(run_folder: str, output: str) -> None:
    """Writes JSON, plots and page of one run."""
    run, target = read_run(Path(run_folder)), Path(output)
    payload = {
        "run": run.name,
        "command": f"python benchmarks/results_page.py {run_folder} {output}",
        "machine": {name: describe_environment()[name] for name in ("system", "processors")},
        "rows": [stage_row(record) for record in run.all()],
    }
    write_record(target.with_suffix(".json"), SCHEMA, payload)
    tables = [training_table(run), search_table(run), glue_table(run), stage_table(payload["rows"])]
    figures = [write_plot(target, name, svg) for name, svg in plots(run).items()]
    renew_page(target.with_suffix(".md"), "\n\n".join([*filter(None, tables), *figures]))


def stage_row(record: StageRecord) -> dict[str, Any]:
    """Returns what one stage left: figures, seconds, and what they depend on."""
    result = dict(record.result or {})
    for bulky in ("scored", "rounds", "origin", "settings", "units", "files", "shards"):
        result.pop(bulky, None)
    times = [row["time"] for row in record.metrics if "time" in row]
    config = record.config
    return {
        "stage": record.folder_name,
        "seeds": seeds_of(config),
        "commit": record.environment.get("commit"),
        "packages": record.environment.get("packages"),
        "config_sha256": digest_of({n: v for n, v in config.items() if n != "run"}),
        "seconds": result.get("seconds") or (times[-1] - times[0] if len(times) > 1 else None),
        "result": result,
    }


def seeds_of(config: dict[str, Any]) -> list[int]:
    """Returns the seeds that a stage's configuration names."""
    for name in ("training", "search"):
        if name in config:
            return [config[name]["seed"]]
    return list(config.get("finetune", {}).get("seeds", ()))


def training_table(run: RunRecords) -> str:
    """Returns the table of what was trained and how well it predicts."""
    head = ["model", "architecture", "parameters", "steps", "tokens", "valid loss", "accuracy"]
    rows = []
    for record in (*run.finished("pretrain"), *run.finished("retrain")):
        result = record.result or {}
        if not result["finished"]:
            continue
        rows.append([
            record.label or ("supernet" if record.stage == "pretrain" else record.stage),
            f"`{result['architecture']}`" if result["architecture"] else "mean of 4 random paths",
            f"{result['parameters']:,}",
            f"{result['steps']:,}",
            f"{result['tokens'] / 1e6:.1f} M",
            f"{result['valid_loss']:.3f}",
            f"{100 * result['valid_accuracy']:.1f} %",
        ])  # fmt: skip
    note = ""
    for record in run.finished("pretrain"):
        result = record.result or {}
        if result["finished"] and not record.label:
            gap = result["unigram_entropy"] - result["valid_loss"]
            note = (
                f"\n\nUnigram entropy of the masked valid targets: {result['unigram_entropy']:.3f} "
                f"nats; the supernet's valid loss is **{gap:.3f} nats below** it."
            )
    return section("Training", head, rows) + note


def search_table(run: RunRecords) -> str:
    """Returns the table of the best architectures found."""
    best = winner(run)
    if best is None:
        return ""
    record = run.finished("search")[0]
    result = record.result or {}
    head = ["rank", "architecture", "parameters", "FLOPs of a row", "loss, inherited weights"]
    rows = [
        [str(rank), f"`{row['architecture']}`", f"{row['parameters']:,}", f"{row['flops']:,.0f}",
         f"{row['loss']:.3f}"]
        for rank, row in enumerate(result["results"][:5], start=1)
    ]  # fmt: skip
    limits = ", ".join(f"{name} {value:,}" for name, value in result["limits"].items() if value)
    return f"{section('Search', head, rows)}\n\n{len(result['scored'])} scores; limits: {limits}."


def glue_table(run: RunRecords) -> str:
    """Returns the table of fine-tuning scores, a column per model."""
    models = {r.label or "model": summary_rows(r) for r in run.finished("finetune")}
    if not models:
        return ""
    tasks = {row["task"]: row["metric"] for rows in models.values() for row in rows}
    rows = [
        [task, metric, *(score_cell(summary, task) for summary in models.values())]
        for task, metric in tasks.items()
    ]
    means = [mean_cell(summary, len(tasks)) for summary in models.values()]
    table = section("GLUE, dev sets", ["task", "metric", *models], [*rows, ["mean", "", *means]])
    return f"{table}\n\nMedian over seeds (lowest to highest), times 100."


def summary_rows(record: StageRecord) -> list[dict[str, Any]]:
    """Returns the summary of one model's fine-tuning: a row per task, at its best rate."""
    return list((record.result or {})["summary"])


def score_cell(summary: list[dict[str, Any]], task: str) -> str:
    """Returns median and range of one task."""
    for row in summary:
        if row["task"] == task:
            low, middle, high = (100 * row[n] for n in ("minimum", "median", "maximum"))
            return f"{middle:.1f} ({low:.1f} to {high:.1f})"
    return "-"


def mean_cell(summary: list[dict[str, Any]], num_tasks: int) -> str:
    """Returns the mean of the medians, if every task was run."""
    if len(summary) != num_tasks:
        return "-"
    return f"{100 * sum(row['median'] for row in summary) / num_tasks:.1f}"


def stage_table(rows: list[dict[str, Any]]) -> str:
    """Returns which commit and configuration stand behind each stage."""
    body = [
        [row["stage"], "-" if row["seconds"] is None else f"{row['seconds']:,.0f}",
         ", ".join(map(str, row["seeds"])), f"`{(row['commit'] or 'unknown')[:12]}`",
         f"`{row['config_sha256'][:12]}`"]
        for row in rows
    ]  # fmt: skip
    return section("Provenance", ["stage", "seconds", "seeds", "commit", "config sha256"], body)


def section(title: str, head: list[str], rows: list[list[str]]) -> str:
    """Returns a heading and a Markdown table."""
    return f"## {title}\n\n{markdown_table(head, rows)}"


def plots(run: RunRecords) -> dict[str, str]:
    """Returns the figures of the page as SVG, by name."""
    trained = [r for r in (*run.finished("pretrain"), *run.finished("retrain"))
               if (r.result or {})["finished"]]  # fmt: skip
    curves = [
        Curve(r.label or "supernet", r.series("train", "loss"), r.series("valid", "loss"))
        for r in trained
    ]
    entropy = (trained[0].result or {})["unigram_entropy"] if trained else None
    scores = {r.label or "model": summary_rows(r) for r in run.finished("finetune")}
    drawn = {}
    if curves:
        drawn["losses"] = loss_plot(curves, entropy=entropy)
    if scores:
        drawn["glue"] = score_plot(scores)
    return drawn


def write_plot(target: Path, name: str, svg: str) -> str:
    """Writes one SVG file and returns the Markdown that shows it."""
    file = target.with_name(f"{target.name}-{name}.svg")
    write_text_atomically(file, standing_alone(svg))
    return f"![{name}]({file.name})"


def renew_page(page: Path, generated: str) -> None:
    """Puts the generated part between its two comments; starts the page if there is none."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Results\n\n{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    write_text_atomically(page, f"{head}{BEGIN}\n\n{generated}\n\n{END}{tail}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("run_folder", help="such as runs/first-run")
    parser.add_argument("output", help="such as docs/results/first-run, without a suffix")
    arguments = parser.parse_args()
    try:
        main(arguments.run_folder, arguments.output)
    except UserError as error:
        parser.exit(EXIT_USER_ERROR, f"{error}\n")
