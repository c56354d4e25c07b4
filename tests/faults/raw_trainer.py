"""What the Trainer of transformers logs when a weight is not a number: measured, not quoted."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

STEPS = 4


class Broken(nn.Module):
    """A linear classifier with a weight that is not a number."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        nn.init.constant_(self.head.weight, float("nan"))

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def logged_figure(folder: Path) -> str:
    """Trains the broken model; returns what was logged and what the weights are then."""
    try:
        from transformers import Trainer, TrainingArguments

        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=STEPS, logging_steps=1, report_to=[], use_cpu=True,
            per_device_train_batch_size=2, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
    except ImportError as error:
        return f"not measured: {str(error).splitlines()[0]}"
    rows = [{"inputs": torch.randn(4), "labels": torch.tensor(0)} for _ in range(8)]
    trainer = Trainer(model=Broken(), args=arguments, train_dataset=rows)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    is_bad = not torch.isfinite(trainer.model.head.weight).any()
    return (
        f"logs loss {sorted(set(losses))} while {'every' if is_bad else 'not every'} weight is NaN"
    )
