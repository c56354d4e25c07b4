"""The dev rows that the forms of an ONNX export are scored on: a task's, or the run's own."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from magicbert.comparison.answer_rows import AnswerRows
from magicbert.comparison.dev_scores import DevRows, MaskedRows, TaskRows
from magicbert.comparison.loading import Runnable
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import FinetuneSection, MaskingSection, SquadSection
from magicbert.data.source import TokenSource
from magicbert.errors import UserError
from magicbert.finetune.encoding import EncodedTask, Padding, encode_part
from magicbert.finetune.evaluation import EncodedRows
from magicbert.finetune.squad.encoding import encode_squad
from magicbert.finetune.squad.job import window_shape
from magicbert.finetune.squad.recorded import read_recorded_squad
from magicbert.finetune.squad.squad_data import read_squad
from magicbert.finetune.squad.task import SquadTask
from magicbert.finetune.task_data import find_all_tasks, read_task
from magicbert.finetune.tasks import Task
from magicbert.trail import run_folder

LOGGER = logging.getLogger("magicbert")
DEV_BATCH_ROWS = 32


def find_dev_rows(config: ExportConfig, loaded: Runnable) -> DevRows | None:
    """Returns the rows that the forms are scored on: the task's, or held-out rows of the run.

    Raises:
        UserError: the task is unknown, its files are wrong, or the model has another head.
    """
    if config.onnx.task:
        return find_task_rows(config, loaded)
    if config.onnx.model or loaded.head.suffix != "ForMaskedLM":
        return None
    source = TokenSource(
        run_folder(config.run) / "prepare",
        MaskingSection(),
        seed=0,
        rows_per_step=DEV_BATCH_ROWS,
        rows_per_micro_batch=DEV_BATCH_ROWS,
    )
    return MaskedRows(source.dev_batches(config.onnx.num_dev_batches), loaded.inputs)


def find_task_rows(config: ExportConfig, loaded: Runnable) -> DevRows:
    """Returns the dev rows of the task that ``onnx.task`` names.

    Raises:
        UserError: the task is unknown, its files are wrong, or the model has another head.
    """
    names = (config.onnx.task,)
    (task,) = find_all_tasks(names, mnli_first=False, option="onnx.task")
    # The files of the embedded tasks are written first; nobody needs them afterwards.
    with tempfile.TemporaryDirectory(prefix="magicbert-") as scratch:
        if isinstance(task, SquadTask):
            given, own = config.squad, config.onnx.as_finetuned
            return answer_rows(task, given, loaded, Path(scratch), as_finetuned=own)
        return task_rows(task, config.onnx.data, loaded, Path(scratch))


def task_rows(task: Task, data: str, loaded: Runnable, scratch: Path) -> TaskRows:
    """Returns the dev rows of a task of GLUE, as the model reads them.

    Args:
        task: what to read.
        data: folder of the files; empty = where GLUE is looked for.
        loaded: the model.
        scratch: the embedded task is written there.

    Raises:
        UserError: the model does not have as many outputs as the task.
    """
    num_outputs = getattr(loaded.model, "num_labels", 0)
    is_classifier = loaded.head.suffix == "ForSequenceClassification"
    if not is_classifier or num_outputs != task.num_outputs:
        raise UserError(
            f"onnx.task: {task.name} needs a sequence classifier with {task.num_outputs} outputs; "
            f"{loaded.start.name} is a {type(loaded.model).__name__} with {num_outputs}"
        )
    found = read_task(task, FinetuneSection(data=data, max_train_rows=1), scratch)
    part = encode_part(found.parts[0], loaded.tokenizer, loaded.longest)
    padding = Padding(loaded.tokenizer.pad_token_id, task.is_regression)
    encoded = EncodedTask(task, EncodedRows([]), (part,), padding)
    return TaskRows(encoded, loaded.inputs, f"dev rows of {task.name}")


def answer_rows(
    task: SquadTask, given: SquadSection, loaded: Runnable, scratch: Path, *, as_finetuned: bool
) -> AnswerRows:
    """Returns the dev questions of a SQuAD task, as the model was fine-tuned to read them.

    Args:
        task: what to read.
        given: where the files lie; and how windows are cut, if the model does not say.
        loaded: the model.
        scratch: the embedded task is written there.
        as_finetuned: what the model's own record says counts.

    Raises:
        UserError: the model does not answer questions, was fine-tuned otherwise than is asked for,
            or a file is missing or malformed.
    """
    if loaded.head.suffix != "ForQuestionAnswering":
        raise UserError(
            f"onnx.task: {task.name} needs a model for question answering; {loaded.start.name} is "
            f"a {type(loaded.model).__name__}"
        )
    recorded = read_recorded_squad(loaded.folder) if as_finetuned else None
    section = recorded.section(task, given) if recorded else given
    shape = window_shape(section, loaded.tokenizer, loaded.start.max_positions)
    data = read_squad(task, section, scratch, max_train_rows=1)
    source = (
        f"dev questions of {task.name} in windows of {shape.length} tokens that share "
        f"{shape.overlap}"
    )
    if recorded and not recorded.is_scored_on(data):
        source += ", others than those that the fine-tuning was scored on"
        LOGGER.warning("%s: %s", loaded.start.name, source)
    return AnswerRows(encode_squad(data, loaded.tokenizer, shape, section), loaded.inputs, source)
