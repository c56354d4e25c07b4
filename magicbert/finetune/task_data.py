"""Finds the rows of a task, and makes the jobs of the grid out of them."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from magicbert.config.roots import FinetuneConfig
from magicbert.config.sections import FinetuneSection
from magicbert.errors import UserError
from magicbert.finetune.embedded_task import write_embedded_task
from magicbert.finetune.encoding import usable_length
from magicbert.finetune.examples import TaskData, take_subset
from magicbert.finetune.glue_folder import read_folder
from magicbert.finetune.glue_hub import read_hub
from magicbert.finetune.job import GlueJob, Job
from magicbert.finetune.pretrained import Pretrained
from magicbert.finetune.squad.job import SquadJob, window_shape
from magicbert.finetune.squad.squad_data import read_squad
from magicbert.finetune.squad.task import SQUAD_TASKS, SquadTask
from magicbert.finetune.squad.teaching import SquadTeaching
from magicbert.finetune.tasks import EMBEDDED, TASKS, Task, find_tasks, refuse_unknown
from magicbert.finetune.teacher import ANSWERER, CLASSIFIER, FinetunedTeacher, find_teacher
from magicbert.finetune.teaching import GlueTeaching

LOGGER = logging.getLogger("magicbert")


def find_all_tasks(
    names: Iterable[str], *, mnli_first: bool, option: str = "finetune.tasks"
) -> list[Task | SquadTask]:
    """Returns the named tasks of GLUE, then those of SQuAD, version 1.1 before 2.0; each once.

    Args:
        names: as the user gave them.
        mnli_first: move MNLI ahead of the tasks that start from its weights.
        option: that they were given to, for the message.

    Raises:
        UserError: naming every unknown task.
    """
    wanted = list(names)
    refuse_unknown(wanted, [*TASKS, *SQUAD_TASKS], option)
    glue = find_tasks((name for name in wanted if name in TASKS), mnli_first=mnli_first)
    return [*glue, *(task for name, task in SQUAD_TASKS.items() if name in wanted)]


def read_jobs(
    tasks: Sequence[Task | SquadTask],
    config: FinetuneConfig,
    folder: Path,
    start: Pretrained,
    tokenizer: Any,
) -> list[Job]:
    """Reads every task before any is trained.

    Args:
        tasks: what to read.
        config: where the files lie, and how rows are cut.
        folder: the stage's folder; embedded tasks are written there.
        start: the model; it says how long a row may be.
        tokenizer: the model's own.

    Raises:
        UserError: a file is missing or malformed, rows have no room, or a teacher does not fit.
    """
    settings, section = config.finetune, config.distillation
    jobs: list[Job] = []
    for task in tasks:
        teacher = teacher_of(task, config, folder)
        if isinstance(task, SquadTask):
            shape = window_shape(config.squad, tokenizer, start.max_positions)
            windows = SquadTeaching.of(teacher, section, tokenizer, shape) if teacher else None
            questions = read_squad(task, config.squad, folder, settings.max_train_rows)
            jobs.append(SquadJob(questions, tokenizer, shape, config.squad, windows))
            wanted = config.squad.max_length
        else:
            wanted = settings.max_length
            length = usable_length(wanted, tokenizer, start.max_positions)
            texts = GlueTeaching.of(teacher, section, task, wanted) if teacher else None
            rows = read_task(task, settings, folder)
            jobs.append(GlueJob(rows, tokenizer, length, settings.mnli_warm_start, texts))
        if jobs[-1].max_length < wanted:
            LOGGER.info("%s: %s reads at most %d tokens: longer rows are cut there",
                        task.name, start.name, jobs[-1].max_length)  # fmt: skip
    return jobs


def teacher_of(
    task: Task | SquadTask, config: FinetuneConfig, own_folder: Path
) -> FinetunedTeacher | None:
    """Returns the teacher of a task, if the configuration asks for one.

    Args:
        task: what is learnt.
        config: names the teacher.
        own_folder: where the students are kept; none of them is a teacher here.

    Raises:
        UserError: it is not there, or does not fit.
    """
    given = config.distillation.teacher
    if not given:
        return None
    folder = Path(os.path.expandvars(given)).expanduser()
    if folder.resolve().is_relative_to(own_folder.resolve()):
        raise UserError(
            f"distillation.teacher: {folder} is where this fine-tuning keeps its own models; give "
            "it another --run.label"
        )
    return find_teacher(
        folder, task.name, ANSWERER if isinstance(task, SquadTask) else CLASSIFIER,
        is_alone=len(set(config.finetune.tasks)) == 1,
        trust_remote_code=config.finetune.trust_remote_code,
    )  # fmt: skip


def read_task(task: Task, settings: FinetuneSection, folder: Path) -> TaskData:
    """Returns all rows of a task, its training rows cut to ``max_train_rows``.

    Args:
        task: what to read.
        settings: where GLUE files lie, and how many rows to train on.
        folder: the stage's folder; the embedded task is written there.
    """
    data = read_rows(task, settings, folder)
    return dataclasses.replace(data, train=take_subset(data.train, settings.max_train_rows))


def read_rows(task: Task, settings: FinetuneSection, folder: Path) -> TaskData:
    """Returns all rows of a task."""
    if task is EMBEDDED:
        from magicbert.data.embedded import described_objects

        root = folder / "tasks"
        write_embedded_task(root, described_objects())
        return read_folder(task, root)
    source = glue_folder(settings)
    return read_hub(task) if source is None else read_folder(task, source)


def glue_folder(settings: FinetuneSection) -> Path | None:
    """Returns the folder of GLUE files, or ``None`` if the hub is to be asked.

    Raises:
        UserError: ``finetune.data`` names something that is not a folder.
    """
    if settings.data:
        folder = Path(os.path.expandvars(settings.data)).expanduser()
        if not folder.is_dir():
            raise UserError(f"finetune.data: {folder} is not a folder")
        return folder
    shared = os.environ.get("MAGICBERT_DATA", "")
    folder = Path(shared) / "glue"
    return folder if shared and folder.is_dir() else None
