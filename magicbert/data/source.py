"""Batches as a pure function of the step, the same for every number of ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from magicbert.config.sections import MaskingSection
from magicbert.data.batch import TokenBatch
from magicbert.data.counter_hash import key_of
from magicbert.data.manifest import read_manifest
from magicbert.data.masking import Masker
from magicbert.data.order import RowOrder
from magicbert.data.shards import RowStore, segment_ids_of
from magicbert.errors import UserError

# Dev rows and their masks never depend on the run's seed, so that scores of runs compare.
DEV_SEED = 0x5EED_DE5
Indices = npt.NDArray[np.int64]


class TokenSource:
    """Masked batches of a prepared folder.

    Step ``s`` reads positions ``s * rows_per_step ..`` of one global order that runs on through
    the epochs. It is cut into micro-batches; micro-batch ``m`` of rank ``r`` out of ``n`` is the
    global one ``m * n + r``. The mask of a row depends on (seed, epoch, row) alone.

    Args:
        folder: what ``magicbert prepare`` wrote.
        masking: which tokens are predicted.
        seed: of order and masks.
        rows_per_step: rows of one optimizer step over all ranks.
        rows_per_micro_batch: rows of one batch.

    Raises:
        UserError: the folder is not prepared or damaged, or the sizes do not fit.
    """

    def __init__(
        self,
        folder: Path,
        masking: MaskingSection,
        *,
        seed: int,
        rows_per_step: int,
        rows_per_micro_batch: int,
    ) -> None:
        if rows_per_step % rows_per_micro_batch:
            raise UserError(
                f"training.rows_per_step: {rows_per_step} is not a multiple of "
                f"rows_per_micro_batch {rows_per_micro_batch}"
            )
        self.manifest = read_manifest(folder)
        self.seed = seed
        self.rows_per_step = rows_per_step
        self.rows_per_micro_batch = rows_per_micro_batch
        length, shards = self.manifest.length, self.manifest.shards
        self._train = RowStore(folder, shards["train"], length)
        self._valid = RowStore(folder, shards["valid"], length)
        self._train_order = RowOrder(len(self._train), seed)
        self._valid_order = RowOrder(len(self._valid), DEV_SEED)
        self._mask = Masker(
            masking,
            vocab_size=self.manifest.vocab_size,
            mask_id=self.manifest.mask_id,
            special_ids=self.manifest.special_ids,
        )

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[TokenBatch]:
        """Returns this rank's micro-batches of one optimizer step (step counts from 0)."""
        size = self.rows_per_micro_batch
        if self.rows_per_step % (size * num_ranks):
            raise UserError(
                f"training.rows_per_step: {self.rows_per_step} is not a multiple of "
                f"rows_per_micro_batch x ranks = {size * num_ranks}"
            )
        positions = self._positions(step)
        mine = positions.reshape(-1, num_ranks, size)[:, rank]
        return self._batches(self._train, self._train_order, mine.reshape(-1))

    def sample_ids(self, step: int) -> Indices:
        """Returns the rows that all ranks together read in one optimizer step."""
        _, indices = self._train_order.locate(self._positions(step))
        return indices

    def _positions(self, step: int) -> Indices:
        first = step * self.rows_per_step
        return np.arange(first, first + self.rows_per_step, dtype=np.int64)

    def dev_batches(self, num_batches: int) -> list[TokenBatch]:
        """Returns the first fixed micro-batches of the held-out split.

        There are fewer when the split has fewer rows; the last one may then be shorter.
        """
        num_rows = min(num_batches * self.rows_per_micro_batch, len(self._valid))
        positions = np.arange(num_rows, dtype=np.int64)
        return self._batches(self._valid, self._valid_order, positions)

    def epoch(self, step: int) -> float:
        """Returns how many passes over the training rows precede a step."""
        return step * self.rows_per_step / len(self._train)

    def _batches(self, store: RowStore, order: RowOrder, positions: Indices) -> list[TokenBatch]:
        """Masks all rows at once, which is faster, and cuts them into micro-batches."""
        epochs, indices = order.locate(positions)
        rows = store.take(indices)
        masked = self._mask(rows, key_of(order.seed, epochs, indices))
        segments = segment_ids_of(rows, cls_id=self.manifest.cls_id, pad_id=self.manifest.pad_id)
        size = self.rows_per_micro_batch
        starts = np.arange(0, len(rows), size)
        cuts = np.searchsorted(masked.positions, np.append(starts, len(rows)) * rows.shape[1])
        return [
            TokenBatch(
                input_ids=torch.from_numpy(masked.input_ids[start : start + size]),
                segment_ids=torch.from_numpy(segments[start : start + size]),
                predicted_positions=torch.from_numpy(
                    masked.positions[first:last] - start * rows.shape[1]
                ),
                labels=torch.from_numpy(masked.labels[first:last]),
                sample_ids=tuple(indices[start : start + size].tolist()),
            )
            for start, first, last in zip(starts.tolist(), cuts[:-1], cuts[1:], strict=True)
        ]
