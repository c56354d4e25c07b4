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

from results_tables import (
    comparison_table,
    forms_table,
    is_masked,
    model_name,
    ranked_tables,
    score_table,
    scores_by_model,
    stage_table,
    training_table,
)

from magicbert.errors import EXIT_USER_ERROR, UserError
from magicbert.records import digest_of, write_record, write_text_atomically
from magicbert.report.plots import Curve, loss_plot, score_plot, standing_alone
from magicbert.report.reading import RunRecords, StageRecord, read_run
from magicbert.trail import describe_environment

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
SCHEMA = "magicbert/results/1"
BULKY = ("scored", "rounds", "origin", "settings", "units", "files", "shards", "table")


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
    tables = [
        training_table(run), *ranked_tables(run), score_table(run),
        comparison_table(run), forms_table(run), stage_table(payload["rows"]),
    ]  # fmt: skip
    figures = [write_plot(target, name, svg) for name, svg in plots(run).items()]
    renew_page(target.with_suffix(".md"), "\n\n".join([*filter(None, tables), *figures]))


def stage_row(record: StageRecord) -> dict[str, Any]:
    """Returns what one stage left: figures, seconds, and what they depend on."""
    result = dict(record.result or {})
    for bulky in BULKY:
        result.pop(bulky, None)
    times = [row["time"] for row in record.metrics if "time" in row]
    config = record.config
    return {
        "stage": record.folder_name,
        "seeds": seeds_of(config),
        "commit": record.environment.get("commit"),
        "packages": record.environment.get("packages"),
        "config_sha256": digest_of({n: v for n, v in config.items() if n != "run"})
        if config
        else None,
        "seconds": result.get("seconds") or (times[-1] - times[0] if len(times) > 1 else None),
        "result": result,
    }


def seeds_of(config: dict[str, Any]) -> list[int]:
    """Returns the seeds that a stage's configuration names."""
    for name in ("training", "search"):
        if name in config:
            return [config[name]["seed"]]
    return list(config.get("finetune", {}).get("seeds", ()))


def plots(run: RunRecords) -> dict[str, str]:
    """Returns the figures of the page as SVG, by name."""
    trained = [r for r in (*run.finished("pretrain"), *run.finished("retrain"))
               if (r.result or {})["finished"]]  # fmt: skip
    masked = [r for r in trained if is_masked(r)]
    entropies = [(r.result or {})["unigram_entropy"] for r in masked]
    scores = scores_by_model(run)
    drawn = {}
    if masked:
        drawn["losses"] = loss_plot([curve_of(r) for r in masked], entropy=entropies[0])
    if discriminators := [r for r in trained if not is_masked(r)]:
        curves = [curve_of(r) for r in discriminators]
        drawn["discriminators"] = loss_plot(curves, unit="token")
    if scores:
        drawn["glue"] = score_plot(scores)
    return drawn


def curve_of(record: StageRecord) -> Curve:
    """Returns the losses of a training; those of training steps only where dev losses compare."""
    is_mixed = not is_masked(record) or record.config.get("distillation", {}).get("teacher")
    train: tuple[list[int], list[float]] = ([], []) if is_mixed else record.series("train", "loss")
    return Curve(model_name(record), train, record.series("valid", "loss"))


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
