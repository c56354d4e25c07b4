"""Random documents, and batches of them: one per padded row, or several packed into a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from magicbert.bench.step.sizes import VOCAB_SIZE, StepSize
from magicbert.data.batch import TokenBatch

NUM_SPECIAL = 5
SHARE_PREDICTED = 0.15
NOT_PREDICTED = -100


@dataclass(frozen=True, slots=True)
class Document:
    """Tokens with what is predicted of them.

    Attributes:
        tokens: ``[length]`` int64.
        positions: ``[M]`` int64, ascending.
        labels: ``[M]`` int64.
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor


def draw_documents(lengths: Sequence[int], seed: int) -> list[Document]:
    """Returns documents of these lengths; 15% of each one's tokens are predicted."""
    generator = torch.Generator().manual_seed(seed)
    documents = []
    for length in lengths:
        number = max(round(SHARE_PREDICTED * length), 1)
        chosen = torch.randperm(length, generator=generator)[:number].sort().values
        tokens = torch.randint(NUM_SPECIAL, VOCAB_SIZE, (length,), generator=generator)
        labels = torch.randint(NUM_SPECIAL, VOCAB_SIZE, (number,), generator=generator)
        documents.append(Document(tokens, chosen, labels))
    return documents


def full_lengths(size: StepSize) -> list[int]:
    """Returns lengths of documents that each fill a row."""
    return [size.length] * size.rows


def paired_lengths(size: StepSize, seed: int) -> list[int]:
    """Returns lengths of which each two fill a row: half a row on average."""
    generator = torch.Generator().manual_seed(seed)
    smallest = max(size.length // 8, 1)
    drawn = torch.randint(smallest, size.length - smallest + 1, (size.rows,), generator=generator)
    return [part for length in drawn.tolist() for part in (length, size.length - length)]


def arrange(documents: Sequence[Document], per_row: int, length: int) -> TokenBatch:
    """Returns a batch with so many documents in each row, one after another, then padding."""
    num_rows = -(-len(documents) // per_row)
    tokens = torch.zeros(num_rows, length, dtype=torch.long)
    segments = torch.zeros(num_rows, length, dtype=torch.long)
    positions = []
    for number, document in enumerate(documents):
        row, place = divmod(number, per_row)
        start = int((segments[row] > 0).sum())
        end = start + len(document.tokens)
        tokens[row, start:end] = document.tokens
        segments[row, start:end] = place + 1
        positions.append(row * length + start + document.positions)
    labels = torch.cat([document.labels for document in documents])
    return TokenBatch(tokens, segments, torch.cat(positions), labels, tuple(range(num_rows)))


def transformers_inputs(batch: TokenBatch) -> dict[str, Tensor]:
    """Returns a batch with one document per row as ``BertForMaskedLM`` takes it."""
    labels = torch.full_like(batch.input_ids, NOT_PREDICTED)
    labels.view(-1)[batch.predicted_positions] = batch.labels
    inputs = {"input_ids": batch.input_ids, "labels": labels}
    is_valid = batch.segment_ids > 0
    # A mask that hides nothing would only cost the peer time.
    return inputs if bool(is_valid.all()) else {**inputs, "attention_mask": is_valid.long()}
