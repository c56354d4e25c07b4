"""The GLUE tasks as data: files, columns, labels, metrics, submission names (GLUE, table 1).

The main metric of a task is the one that NAS-BERT averages over: accuracy, but Matthews for CoLA,
Spearman for STS-B, and the matched half for MNLI. The other official metrics are reported beside
it (F1 for MRPC and QQP, Pearson for STS-B, the mismatched half for MNLI).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from magicbert.errors import UserError

ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")


@dataclass(frozen=True)
class Part:
    """One dev set with its test set; MNLI has two of them, every other task one.

    Attributes:
        dev: stem of the dev file.
        test: stem of the test file.
        submission: name of the prediction file, without ``.tsv``.
        metric_suffix: added to the metric names of this part.
        hub_dev: split of the same rows on the hub.
        hub_test: split of the test rows on the hub.
    """

    submission: str
    dev: str = "dev"
    test: str = "test"
    metric_suffix: str = ""
    hub_dev: str = "validation"
    hub_test: str = "test"


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: what the user types.
        folder: sub-folder of the data folder.
        texts: one or two text columns.
        label: label column.
        labels: label names in class order, as the files and submissions spell them; empty for
            regression.
        metrics: names in `magicbert.finetune.metrics.METRICS`; the first is the main one.
        parts: dev sets; the first gives the score.
        header: column names of train and dev files that have no header line.
        bounds: lowest and highest target of a regression.
        max_ragged_rows: ragged rows that are skipped and reported; more of them are an error.
        hub_name: configuration of the data set on the hub; empty = not there.
        hub_texts: text columns on the hub.
        starts_from_mnli: may start from the weights fine-tuned on MNLI, as RoBERTa did.
    """

    name: str
    folder: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    parts: tuple[Part, ...]
    header: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0.0, 0.0)
    max_ragged_rows: int = 0
    hub_name: str = ""
    hub_texts: tuple[str, ...] = ()
    starts_from_mnli: bool = False

    @property
    def main_metric(self) -> str:
        """Returns the name of the metric that ranks models."""
        return self.metrics[0]

    @property
    def is_regression(self) -> bool:
        """Returns whether targets are numbers."""
        return not self.labels

    @property
    def num_outputs(self) -> int:
        """Returns the width of the classifier's last layer."""
        return len(self.labels) or 1


MNLI_PARTS = (
    Part("MNLI-m", "dev_matched", "test_matched", "", "validation_matched", "test_matched"),
    Part(
        "MNLI-mm", "dev_mismatched", "test_mismatched", "_mismatched",
        "validation_mismatched", "test_mismatched",
    ),
)  # fmt: skip

GLUE_TASKS = (
    Task(
        name="cola", folder="CoLA", texts=("sentence",), label="label", labels=BINARY,
        metrics=("matthews", "accuracy"), parts=(Part("CoLA"),),
        header=("source", "label", "mark", "sentence"),
        hub_name="cola", hub_texts=("sentence",),
    ),
    Task(
        name="sst2", folder="SST-2", texts=("sentence",), label="label", labels=BINARY,
        metrics=("accuracy",), parts=(Part("SST-2"),),
        hub_name="sst2", hub_texts=("sentence",),
    ),
    Task(
        name="mrpc", folder="MRPC", texts=("#1 String", "#2 String"), label="Quality",
        labels=BINARY, metrics=("accuracy", "f1"), parts=(Part("MRPC"),),
        hub_name="mrpc", hub_texts=("sentence1", "sentence2"), starts_from_mnli=True,
    ),
    Task(
        name="stsb", folder="STS-B", texts=("sentence1", "sentence2"), label="score", labels=(),
        metrics=("spearman", "pearson"), parts=(Part("STS-B"),), bounds=(0.0, 5.0),
        hub_name="stsb", hub_texts=("sentence1", "sentence2"), starts_from_mnli=True,
    ),
    # The published QQP train file holds a few questions with line feeds, which break their rows;
    # the reference loaders drop these (nyu-mll/GLUE-baselines issue 5).
    Task(
        name="qqp", folder="QQP", texts=("question1", "question2"), label="is_duplicate",
        labels=BINARY, metrics=("accuracy", "f1"), parts=(Part("QQP"),), max_ragged_rows=32,
        hub_name="qqp", hub_texts=("question1", "question2"),
    ),
    Task(
        name="mnli", folder="MNLI", texts=("sentence1", "sentence2"), label="gold_label",
        labels=("entailment", "neutral", "contradiction"), metrics=("accuracy",),
        parts=MNLI_PARTS, hub_name="mnli", hub_texts=("premise", "hypothesis"),
    ),
    Task(
        name="qnli", folder="QNLI", texts=("question", "sentence"), label="label",
        labels=ENTAILMENT, metrics=("accuracy",), parts=(Part("QNLI"),),
        hub_name="qnli", hub_texts=("question", "sentence"),
    ),
    Task(
        name="rte", folder="RTE", texts=("sentence1", "sentence2"), label="label",
        labels=ENTAILMENT, metrics=("accuracy",), parts=(Part("RTE"),),
        hub_name="rte", hub_texts=("sentence1", "sentence2"), starts_from_mnli=True,
    ),
    Task(
        name="wnli", folder="WNLI", texts=("sentence1", "sentence2"), label="label",
        labels=BINARY, metrics=("accuracy",), parts=(Part("WNLI"),),
        hub_name="wnli", hub_texts=("sentence1", "sentence2"),
    ),
)  # fmt: skip

EMBEDDED = Task(
    name="embedded", folder="Embedded", texts=("question", "sentence"), label="label",
    labels=ENTAILMENT, metrics=("accuracy", "f1"), parts=(Part("Embedded"),),
)  # fmt: skip

TASKS = {task.name: task for task in (*GLUE_TASKS, EMBEDDED)}


def find_tasks(names: Iterable[str], *, mnli_first: bool) -> list[Task]:
    """Returns the named tasks of GLUE, each once.

    Args:
        names: as the user gave them.
        mnli_first: move MNLI ahead of the tasks that start from its weights.

    Raises:
        UserError: naming every unknown task.
    """
    wanted = list(dict.fromkeys(names))
    refuse_unknown(wanted, TASKS)
    if mnli_first:
        wanted.sort(key=lambda name: name != "mnli")
    return [TASKS[name] for name in wanted]


def refuse_unknown(
    names: Iterable[str], known: Collection[str], option: str = "finetune.tasks"
) -> None:
    """Raises `UserError` with every name, given as ``option``, that no task has."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"{option}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(known)}"
        )
