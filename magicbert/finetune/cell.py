"""One cell of the grid: one model fine-tuned on one task with one learning rate and one seed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from magicbert.config.sections import FinetuneSection
from magicbert.finetune.encoding import EncodedRows, EncodedTask
from magicbert.finetune.metrics import METRICS, Values
from magicbert.finetune.pretrained import Pretrained, load_classifier
from magicbert.finetune.tasks import Task

# Adam as in the RoBERTa recipe for GLUE, which the papers of this method follow.
ADAM_BETA2 = 0.98
ADAM_EPSILON = 1e-6
EVAL_BATCH_SIZE = 64
MAX_WARMUP_SHARE = 0.9999
Logits = NDArray[np.float64]  # [rows, outputs]


@dataclass(frozen=True)
class Cell:
    """A place in the grid."""

    task: str
    learning_rate: float
    seed: int

    def __str__(self) -> str:
        """Returns ``sst2-lr2e-05-seed0``."""
        return f"{self.task}-lr{self.learning_rate:g}-seed{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What one cell gave.

    Attributes:
        metrics: every metric on every dev set.
        predictions: per submission name, the predicted classes or targets of the test rows, or of
            the dev rows where there is no test file.
        seconds: time spent in training and evaluation.
        diverged: the model gave values that are not finite; its metrics are all 0.
        model: the fine-tuned model.
    """

    metrics: Mapping[str, float]
    predictions: Mapping[str, Values]
    seconds: float
    diverged: bool
    model: Any


def finetune_cell(
    start: Pretrained,
    data: EncodedTask,
    cell: Cell,
    settings: FinetuneSection,
    *,
    weights: str = "",
    callbacks: list[transformers.TrainerCallback] | None = None,
) -> Outcome:
    """Fine-tunes one model and evaluates it once, at the end.

    Args:
        start: the model to start from.
        data: encoded rows of the task.
        cell: learning rate and seed.
        settings: epochs, batch size, decay, warm-up.
        weights: folder of other weights to start from (MNLI warm start).
        callbacks: told about every step.
    """
    began = time.monotonic()
    transformers.set_seed(cell.seed)
    model = load_classifier(start, data.task, weights)
    with tempfile.TemporaryDirectory(prefix="magicbert-") as scratch:
        trainer = transformers.Trainer(
            model=model,
            args=training_arguments(scratch, cell, settings),
            train_dataset=data.train,
            data_collator=data.padding,
            callbacks=callbacks,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        # With "group_by_length" the Trainer would shuffle the rows that it predicts, too.
        trainer.args.train_sampling_strategy = "sequential"
        logits = [predict(trainer, item.dev) for item in data.parts]
        final = [
            values if item.test is None else predict(trainer, item.test)
            for item, values in zip(data.parts, logits, strict=True)
        ]
    metrics, diverged = score(data, logits)
    predictions = {
        item.part.submission: decide(data.task, values)
        for item, values in zip(data.parts, final, strict=True)
    }
    return Outcome(metrics, predictions, time.monotonic() - began, diverged, model)


def score(data: EncodedTask, logits: Sequence[Logits]) -> tuple[dict[str, float], bool]:
    """Returns every metric on every dev set, and whether the model diverged (all are 0 then)."""
    diverged = not all(np.isfinite(values).all() for values in logits)
    metrics = {}
    for item, values in zip(data.parts, logits, strict=True):
        predicted = decide(data.task, values)
        labels = np.asarray(item.dev_labels, dtype=np.float64)
        for name in data.task.metrics:
            value = 0.0 if diverged else METRICS[name](predicted, labels)
            metrics[name + item.part.metric_suffix] = value
    return metrics, diverged


def training_arguments(
    scratch: str, cell: Cell, settings: FinetuneSection
) -> transformers.TrainingArguments:
    """Returns the Trainer's settings: fp32, nothing logged, nothing saved, no workers."""
    arguments = transformers.TrainingArguments(
        output_dir=scratch,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=EVAL_BATCH_SIZE,
        num_train_epochs=settings.num_epochs,
        learning_rate=cell.learning_rate,
        lr_scheduler_type="linear",
        # Below 1 the Trainer reads a share of the steps, from 1 on a number of steps.
        warmup_steps=min(settings.warmup_ratio, MAX_WARMUP_SHARE),
        weight_decay=settings.weight_decay,
        adam_beta2=ADAM_BETA2,
        adam_epsilon=ADAM_EPSILON,
        seed=cell.seed,
        train_sampling_strategy="group_by_length",
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    # Several devices would make the Trainer split each batch over them and change its size.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def predict(trainer: transformers.Trainer, rows: EncodedRows) -> Logits:
    """Returns logits ``[rows, outputs]`` in the order of the rows."""
    ordered, order = rows.shortest_first()
    output = trainer.predict(ordered).predictions
    values = np.asarray(output[0] if isinstance(output, tuple) else output, dtype=np.float64)
    logits: Logits = np.empty_like(values)
    logits[order] = values
    return logits


def decide(task: Task, logits: Logits) -> Values:
    """Returns class numbers, or targets held inside the task's bounds."""
    if not task.is_regression:
        classes: Values = np.argmax(logits, axis=1).astype(np.float64)
        return classes
    low, high = task.bounds
    targets: Values = np.clip(np.nan_to_num(logits[:, 0], nan=low), low, high)
    return targets
