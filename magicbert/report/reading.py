"""What a run left behind, read from its records and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.yaml_text import parse_yaml
from magicbert.errors import UserError
from magicbert.records import digest_of, read_record
from magicbert.trail import read_metrics

# The result of each stage that leaves one: file and schema.
RESULTS = {
    "prepare": ("manifest.json", "magicbert/prepare/1"),
    "pretrain": ("result.json", "magicbert/training-result/1"),
    "analyze": ("result.json", "magicbert/analysis/2"),
    "search": ("architectures.json", "magicbert/architectures/1"),
    "compress": ("architectures.json", "magicbert/architectures/1"),
    "retrain": ("result.json", "magicbert/training-result/1"),
    "finetune": ("results.json", "magicbert/finetune/1"),
    "compare": ("comparison.json", "magicbert/comparison/1"),
    "onnx": ("onnx.json", "magicbert/onnx/1"),
}

Row = dict[str, Any]


@dataclass(frozen=True)
class StageRecord:
    """One stage folder of a run.

    Attributes:
        stage: the verb.
        label: what tells it from others of the same verb; empty for the plain folder.
        config: the resolved configuration.
        environment: versions, machine and commit.
        metrics: lines of ``metrics.jsonl``, oldest first.
        result: the stage's result; ``None`` while it has not written one.
        digest: of the result, empty without one.
    """

    stage: str
    label: str
    config: Row
    environment: Row
    metrics: tuple[Row, ...]
    result: Row | None
    digest: str

    @property
    def folder_name(self) -> str:
        """Name of the folder inside the run."""
        return f"{self.stage}-{self.label}" if self.label else self.stage

    @property
    def is_finished(self) -> bool:
        """Whether the stage reached its end; a stopped training leaves a partial result."""
        return self.result is not None and bool(self.result.get("finished", True))

    @property
    def model_name(self) -> str:
        """Name of the model that this stage trained: its label, else it is the search's winner."""
        return self.label or "winner"

    def series(self, kind: str, name: str) -> tuple[list[int], list[float]]:
        """Returns steps and values of one metric.

        A resumed run repeats the steps after its checkpoint: the last line of a step counts.
        """
        values = {
            row["step"]: row[name]
            for row in self.metrics
            if row.get("kind") == kind and row.get("step") is not None and row.get(name) is not None
        }
        steps = sorted(values)
        return steps, [values[step] for step in steps]


@dataclass(frozen=True)
class RunRecords:
    """All stages of one run.

    Attributes:
        name: the run's name.
        stages: per verb, the plain folder first, then the labelled ones by name.
        exports: names of the export folders.
    """

    name: str
    stages: dict[str, tuple[StageRecord, ...]]
    exports: tuple[str, ...]

    def of(self, stage: str) -> tuple[StageRecord, ...]:
        """Returns the records of one verb, perhaps none."""
        return self.stages.get(stage, ())

    def finished(self, stage: str) -> tuple[StageRecord, ...]:
        """Returns the records of one verb that reached their end."""
        return tuple(record for record in self.of(stage) if record.is_finished)

    def all(self) -> tuple[StageRecord, ...]:
        """Returns every record in the order of the chain."""
        return tuple(record for stage in RESULTS for record in self.of(stage))


def read_run(folder: Path) -> RunRecords:
    """Reads every stage of a run; stages that have not run are left out.

    Raises:
        UserError: there is no such run, or one of its records is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run; give --run.root and --run.name of one")
    stages = {}
    for stage in RESULTS:
        found = [path for path in folder.glob(f"{stage}*") if is_stage(path, stage)]
        stages[stage] = tuple(read_stage(path, stage) for path in sorted(found))
    exports = sorted(path.name for path in folder.glob("export*") if is_stage(path, "export"))
    return RunRecords(folder.resolve().name, stages, tuple(exports))


def is_stage(path: Path, stage: str) -> bool:
    """Says whether a path is the folder of a stage, with or without a label."""
    return path.is_dir() and (path.name == stage or path.name.startswith(f"{stage}-"))


def read_stage(folder: Path, stage: str) -> StageRecord:
    """Reads one stage folder."""
    file, schema = RESULTS[stage]
    result = read_record(folder / file, schema) if (folder / file).exists() else None
    return StageRecord(
        stage=stage,
        label=folder.name[len(stage) + 1 :],
        config=read_mapping(folder / "config.yaml"),
        environment=read_mapping(folder / "environment.json") or own_environment(result or {}),
        metrics=tuple(read_metrics(folder)),
        result=result,
        digest="" if result is None else digest_of(result),
    )


def own_environment(result: Row) -> Row:
    """Returns what a result says of the machine and the versions, where no other file does."""
    if "machine" not in result or "versions" not in result:
        return {}
    packages = dict(result["versions"])
    return {
        **result["machine"],
        "python": packages.pop("python", None),
        "packages": packages,
        "commit": result.get("commit"),
    }


def read_mapping(file: Path) -> Row:
    """Returns the mapping in a JSON or YAML file of the trail; empty when there is no file."""
    try:
        text = file.read_text(encoding="utf-8")
        tree = json.loads(text) if file.suffix == ".json" else parse_yaml(text)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    return tree if isinstance(tree, dict) else {}


def winner(run: RunRecords) -> Row | None:
    """Returns the search's best result, or ``None``."""
    for record in run.finished("search"):
        results: Sequence[Row] = (record.result or {}).get("results", ())
        if results:
            return results[0]
    return None


def of_winner(run: RunRecords, stage: str) -> StageRecord | None:
    """Returns the record of a stage that belongs to the winner, else the first finished one.

    It has the label of the retraining whose architecture the search found best.
    """
    best = winner(run)
    labels = [
        record.label
        for record in run.finished("retrain")
        if best and (record.result or {}).get("architecture") == best["architecture"]
    ]
    found = run.finished(stage)
    return next((record for record in found if record.label in labels), next(iter(found), None))
