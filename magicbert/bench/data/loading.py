"""The loader: rows on disk in, masked batches out, against torch's with transformers' collator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from magicbert.bench.data.corpus import LENGTH, token_source
from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.bench.step.documents import NOT_PREDICTED
from magicbert.data.shards import RowStore

ROWS = 256
PROBABILITY = 0.15
ALLOWED = 0.01


def loader_case(folder: Path, seed: int, *, peers: bool) -> Case:
    """Returns the case: batches of 256 rows in a shuffled order, in one process.

    Args:
        folder: what ``magicbert prepare`` wrote.
        seed: of order and masks.
        peers: whether peers take part.
    """

    def build(device: torch.device) -> Trial:
        lineup = Lineup()
        lineup.add(OWN, lambda: own_batches(folder, seed))
        if peers:
            lineup.add("DataLoader, transformers collator", lambda: torch_batches(folder))
        return Trial(lineup=lineup, judge=verdict, floor=Floor(), units=ROWS * LENGTH)

    variant: dict[str, int | str] = {"rows": ROWS, "length": LENGTH}
    return Case("loader", variant, build, unit="tokens", is_host_work=True)


def own_batches(folder: Path, seed: int) -> Callable[[int], tuple[int, int]]:
    """Returns a call that takes magicbert's next batch."""
    source, steps = token_source(folder, ROWS, seed), itertools.count()

    def call(index: int) -> tuple[int, int]:
        (batch,) = source.step_batches(next(steps), 0, 1)
        return batch.input_ids.numel(), len(batch.predicted_positions)

    return call


def torch_batches(folder: Path) -> Callable[[int], tuple[int, int]]:
    """Returns a call that takes the next batch of torch's loader over the same rows.

    The rows are lists of ids in memory: reading them costs this peer nothing.
    """
    manifest = token_source(folder, ROWS, 0).manifest
    store = RowStore(folder, manifest.shards["train"], manifest.length)
    examples = [{"input_ids": row.tolist()} for row in store.take(np.arange(len(store)))]
    collator = DataCollatorForLanguageModeling(
        AutoTokenizer.from_pretrained(str(folder / "tokenizer")), mlm_probability=PROBABILITY
    )
    loader: Any = DataLoader(
        examples,  # type: ignore[arg-type]
        batch_size=ROWS, shuffle=True, drop_last=True, collate_fn=collator,
    )  # fmt: skip

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    endless = batches()

    def call(index: int) -> tuple[int, int]:
        batch = next(endless)
        return batch["input_ids"].numel(), int((batch["labels"] != NOT_PREDICTED).sum())

    return call


def verdict(contender: Contender) -> Verdict:
    """Checks the share of predicted tokens of a whole batch."""
    num_tokens, num_predicted = contender.call(0)
    is_whole = num_tokens == ROWS * LENGTH
    share = num_predicted / (num_tokens * (LENGTH - 2) / LENGTH)
    return Verdict(abs(share - PROBABILITY) if is_whole else 1.0, ALLOWED)
