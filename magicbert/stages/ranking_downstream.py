"""Fine-tuning in a ranking study: one model, one task, one learning rate, dev rows alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch

from magicbert.config.sections import DownstreamSection, FinetuneSection
from magicbert.errors import UserError
from magicbert.finetune.cell import Cell, finetune_cell
from magicbert.finetune.encoding import EncodedTask, encode_task, usable_length
from magicbert.finetune.examples import TaskData
from magicbert.finetune.pretrained import Pretrained, describe_pretrained, load_tokenizer
from magicbert.finetune.task_data import glue_folder, read_task
from magicbert.finetune.tasks import EMBEDDED, find_tasks
from magicbert.stages.finetune import quieten_transformers


@dataclass(frozen=True)
class FineTuning:
    """Fine-tunes models that share a tokenizer; a task is read and encoded once.

    Attributes:
        setting: tasks and recipe.
        encoded: tasks read so far.
    """

    setting: DownstreamSection
    encoded: dict[str, EncodedTask] = field(default_factory=dict)

    def __call__(self, folder: Path, task: str, seed: int) -> tuple[str, float]:
        """Returns the main metric of a task and its value on the dev rows.

        Args:
            folder: exported model.
            task: its name.
            seed: of the new head and of the order of rows.
        """
        quieten_transformers()
        start = describe_pretrained(folder.name, str(folder), trust_remote_code=False)
        data = self.encode(task, start)
        cell = Cell(task, self.setting.learning_rate, seed)
        threads = torch.get_num_threads()
        outcome = finetune_cell(start, data, cell, recipe(self.setting))
        torch.set_num_threads(threads)
        metric = data.task.main_metric + data.parts[0].part.metric_suffix
        return metric, float(outcome.evaluation.metrics[metric])

    def encode(self, task: str, start: Pretrained) -> EncodedTask:
        """Returns the token ids of a task."""
        if task not in self.encoded:
            tokenizer = load_tokenizer(start)
            length = usable_length(self.setting.max_length, tokenizer, start.max_positions)
            self.encoded[task] = encode_task(read_dev_task(task, self.setting), tokenizer, length)
        return self.encoded[task]


def read_dev_task(task: str, setting: DownstreamSection) -> TaskData:
    """Returns the rows of a task, those of the first dev set alone: test rows score nothing.

    Raises:
        UserError: the task is unknown, or its files are missing or wrong.
    """
    (found,) = find_tasks((task,), mnli_first=False)
    settings = recipe(setting)
    if found is EMBEDDED or glue_folder(settings) is None:
        raise UserError(
            f"ranking.downstream.tasks: {task} is read from a folder of GLUE files; set "
            "ranking.downstream.data or $MAGICBERT_DATA"
        )
    data = read_task(found, settings, Path())
    return dataclasses.replace(data, parts=(dataclasses.replace(data.parts[0], test=None),))


def recipe(setting: DownstreamSection) -> FinetuneSection:
    """Returns the settings in the words of `magicbert finetune`."""
    return FinetuneSection(
        tasks=setting.tasks,
        data=setting.data,
        learning_rates=(setting.learning_rate,),
        seeds=(0,),
        num_epochs=setting.num_epochs,
        batch_size=setting.batch_size,
        max_length=setting.max_length,
        max_train_rows=setting.max_train_rows,
        mnli_warm_start=False,
    )
