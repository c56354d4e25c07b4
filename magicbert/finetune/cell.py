"""One cell of the grid: one model fine-tuned on one task with one learning rate and one seed."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from magicbert.config.sections import FinetuneSection
from magicbert.finetune.distillation import DistillingTrainer
from magicbert.finetune.evaluation import Encoded, Evaluation
from magicbert.finetune.pretrained import Pretrained

# Adam as in the RoBERTa recipe for GLUE, which the papers of this method follow.
ADAM_BETA2 = 0.98
ADAM_EPSILON = 1e-6
EVAL_BATCH_SIZE = 64
MAX_WARMUP_SHARE = 0.9999


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
        evaluation: metrics and prediction files.
        seconds: time spent in training and evaluation.
        model: the fine-tuned model.
    """

    evaluation: Evaluation
    seconds: float
    model: Any


def finetune_cell(
    start: Pretrained,
    data: Encoded,
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
        weights: folder of other weights to start from (warm start).
        callbacks: told about every step.
    """
    began = time.monotonic()
    transformers.set_seed(cell.seed)
    model = data.load(start, weights)
    with tempfile.TemporaryDirectory(prefix="magicbert-") as scratch:
        trainer = DistillingTrainer(
            data.lesson,
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
        evaluation = data.evaluate(trainer)
    return Outcome(evaluation, time.monotonic() - began, model)


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
