"""What others do when a file of a checkpoint is missing: measured on their own code."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.training.starting.environment import accelerator, prepare_operators

STEPS, SAVED_AT = 6, (2, 4)


def deepspeed_loses_files(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Raw DeepSpeed, ZeRO-1: each file goes in turn, `latest` among them."""
    prepare_operators()
    train_with_deepspeed(folder / "whole")
    files = [path.relative_to(folder / "whole") for path in files_below(folder / "whole", "step4")]
    return [
        [file.name, outcome(folder, file, lambda place: train_with_deepspeed(place))]
        for file in [Path("latest"), *files]
    ]


def train_with_deepspeed(folder: Path) -> tuple[int, list[Tensor]]:
    """Loads what DeepSpeed loads, trains to the end; returns where it began, and the weights."""
    import deepspeed

    accelerator()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    config = {
        "train_batch_size": 4,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        "zero_optimization": {"stage": 1},
        "zero_force_ds_cpu_optimizer": False,
    }
    engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.load_checkpoint(str(folder))
    first = engine.global_steps
    for step in range(first, STEPS):
        generator = torch.Generator().manual_seed(step)
        loss = engine(torch.randn(4, 8, generator=generator)).square().mean()
        engine.backward(loss)
        engine.step()
        if step + 1 in SAVED_AT:
            engine.save_checkpoint(str(folder), tag=f"step{step + 1}")
    return first, [value.clone() for value in engine.module.state_dict().values()]


def deepspeed_goes_on(rank: int, num_ranks: int, folder: Path, arguments: Any) -> str:
    """Raw DeepSpeed: trains to the end, or from a checkpoint on; says whether that was the same."""
    prepare_operators()
    try:
        _, weights = train_with_deepspeed(folder / "run")
    except Exception as error:
        return f"error: {type(error).__name__}"
    if arguments is None:
        return "done"
    (folder / "run/latest").write_text("step4")
    _, others = train_with_deepspeed(folder / "run")
    is_same = all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
    return "same result" if is_same else "another result"


def trainer_loses_files(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Hugging Face's Trainer: each file of the newest checkpoint goes in turn."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    train_with_trainer(folder / "whole")
    shutil.rmtree(folder / f"whole/checkpoint-{STEPS}", ignore_errors=True)
    found = files_below(folder / "whole", "checkpoint-4")
    files = [path.relative_to(folder / "whole") for path in found]
    return [
        [file.name, outcome(folder, file, lambda place: train_with_trainer(place))]
        for file in files
        if file.name != "README.md"
    ]


def train_with_trainer(folder: Path) -> tuple[int, list[Tensor]]:
    """Resumes from the newest checkpoint, if there is one, as its documentation says."""
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(vocab_size=20, intermediate_size=8, max_position_embeddings=8, **sizes)
    model = BertForSequenceClassification(config)
    rows = [{"input_ids": [i % 20, 3, 5], "labels": i % 2} for i in range(32)]
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, save_steps=2, save_total_limit=3, report_to=[],
        per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True, learning_rate=1e-2,
        logging_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return 0 if last is None else 4, [value.clone() for value in model.state_dict().values()]


def files_below(root: Path, name: str) -> list[Path]:
    """Returns the files of one checkpoint."""
    return sorted(path for path in (root / name).rglob("*") if path.is_file())


def outcome(folder: Path, lost: Path, train: Callable[[Path], tuple[int, list[Tensor]]]) -> str:
    """Removes a file from a copy of the run and goes on; says what came of it."""
    expected, found = folder / "expected", folder / "found"
    for copy in (expected, found):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / "whole", copy)
    (found / lost).unlink()
    _, weights = train(expected)
    try:
        first, others = train(found)
    except Exception as error:
        return f"error: {type(error).__name__}"
    if first == 0:
        return "began anew"
    is_same = all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
    return "same result" if is_same else "another result"
