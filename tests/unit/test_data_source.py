from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
import torch
from tiny_corpus import config_for, make_documents, prepare_folder, write_corpus

from magicbert.config.sections import MaskingSection
from magicbert.data.batch import TokenBatch
from magicbert.data.loader import Prefetcher
from magicbert.data.source import TokenSource
from magicbert.data.statistics import masked_unigram_entropy
from magicbert.errors import UserError


@pytest.fixture(scope="module", params=["full", "packed"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    corpus = write_corpus(root / "corpus.txt", make_documents(200))
    return prepare_folder(config_for(root, corpus, shards={"layout": request.param}))


def make_source(
    folder: Path, seed: int = 0, rows_per_step: int = 24, rows_per_micro_batch: int = 4
) -> TokenSource:
    return TokenSource(
        folder,
        MaskingSection(),
        seed=seed,
        rows_per_step=rows_per_step,
        rows_per_micro_batch=rows_per_micro_batch,
    )


def rows_by_position(source: TokenSource, step: int, num_ranks: int) -> list[tuple[object, ...]]:
    """Returns the rows of one step in global order, with ids, labels and predicted positions."""
    by_rank = [source.step_batches(step, rank, num_ranks) for rank in range(num_ranks)]
    ordered = [batch for turn in zip(*by_rank, strict=True) for batch in turn]
    return [row for batch in ordered for row in rows_of(batch)]


def rows_of(batch: TokenBatch) -> list[tuple[object, ...]]:
    length = batch.input_ids.shape[1]
    owners = batch.predicted_positions // length
    return [
        (
            sample,
            tuple(batch.input_ids[i].tolist()),
            tuple(batch.segment_ids[i].tolist()),
            tuple((batch.predicted_positions[owners == i] % length).tolist()),
            tuple(batch.labels[owners == i].tolist()),
        )
        for i, sample in enumerate(batch.sample_ids)
    ]


def same(first: TokenBatch, second: TokenBatch) -> bool:
    return rows_of(first) == rows_of(second)


def test_every_number_of_ranks_sees_the_same_rows_and_masks(folder: Path) -> None:
    source = make_source(folder)
    for step in (0, 1, 50):
        alone = rows_by_position(source, step, 1)
        assert len(alone) == 24
        assert rows_by_position(source, step, 2) == alone
        assert rows_by_position(source, step, 3) == alone
        other_cut = make_source(folder, rows_per_micro_batch=12)
        assert rows_by_position(other_cut, step, 2) == alone


def test_steps_run_through_every_row_once_an_epoch(folder: Path) -> None:
    source = make_source(folder)
    num_rows = source.manifest.num_rows["train"]
    num_steps = 3 * num_rows // 24
    samples = [
        sample
        for step in range(num_steps)
        for batch in source.step_batches(step, 0, 1)
        for sample in batch.sample_ids
    ]

    assert sorted(samples[:num_rows]) == list(range(num_rows))
    assert sorted(samples[num_rows : 2 * num_rows]) == list(range(num_rows))
    assert samples[:num_rows] != samples[num_rows : 2 * num_rows]


def test_a_row_is_masked_anew_in_every_epoch(folder: Path) -> None:
    source = make_source(folder, rows_per_step=4)
    num_rows = source.manifest.num_rows["train"]
    masks: dict[int, set[object]] = {}
    for step in range(3 * num_rows // 4):
        for row in rows_by_position(source, step, 1):
            masks.setdefault(int(row[0]), set()).add(row[3])  # type: ignore[call-overload]

    assert sum(len(found) > 1 for found in masks.values()) > 0.95 * num_rows


def test_a_step_is_a_pure_function(folder: Path) -> None:
    first, second = make_source(folder), make_source(folder)
    first.step_batches(0, 0, 1)
    first.dev_batches(2)

    assert rows_by_position(first, 7, 1) == rows_by_position(second, 7, 1)
    assert rows_by_position(make_source(folder, seed=1), 7, 1) != rows_by_position(second, 7, 1)


def test_batches_hold_what_they_say(folder: Path) -> None:
    source = make_source(folder)
    (batch, *_) = source.step_batches(0, 0, 1)
    restored = batch.input_ids.clone()
    restored.view(-1)[batch.predicted_positions] = batch.labels

    assert batch.input_ids.dtype == batch.segment_ids.dtype == batch.labels.dtype == torch.int64
    assert batch.input_ids.shape == batch.segment_ids.shape == (4, 32)
    assert ((restored == source.manifest.pad_id) == (batch.segment_ids == 0)).all()
    assert not set(batch.labels.tolist()) & set(source.manifest.special_ids)
    assert (batch.segment_ids.view(-1)[batch.predicted_positions] > 0).all()
    num_starts = (restored == source.manifest.cls_id).sum(dim=1)
    assert (batch.segment_ids.max(dim=1).values == num_starts).all()
    assert batch.to(torch.device("cpu")).sample_ids == batch.sample_ids


def test_dev_batches_are_fixed_and_do_not_depend_on_the_seed(folder: Path) -> None:
    first = make_source(folder).dev_batches(3)
    second = make_source(folder, seed=9).dev_batches(2)

    assert len(first) == 3
    assert all(same(a, b) for a, b in zip(first, second, strict=False))


def test_a_small_valid_split_gives_fewer_dev_batches(folder: Path) -> None:
    source = make_source(folder)
    batches = source.dev_batches(10_000)
    samples = [sample for batch in batches for sample in batch.sample_ids]

    assert sorted(samples) == list(range(source.manifest.num_rows["valid"]))


def test_sizes_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="24 is not a multiple of rows_per_micro_batch 5"):
        make_source(folder, rows_per_micro_batch=5)
    with pytest.raises(UserError, match=r"rows_per_micro_batch x ranks = 16"):
        make_source(folder).step_batches(0, 0, 4)


def test_an_unprepared_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `magicbert prepare` first"):
        make_source(tmp_path)


def test_the_prefetcher_yields_the_same_batches_in_order(folder: Path) -> None:
    source = make_source(folder)
    with Prefetcher(source, rank=1, num_ranks=2, first_step=3) as batches:
        for step in range(3, 9):
            found, expected = next(batches), source.step_batches(step, 1, 2)
            assert all(same(a, b) for a, b in zip(found, expected, strict=True))
        assert batches.seconds_waited >= 0


class FailingSource:
    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[int]:
        if step == 2:
            raise UserError("step 2 is broken")
        return [step]


def test_the_prefetcher_raises_where_the_batch_would_have_come() -> None:
    batches = Prefetcher(FailingSource(), 0, 1)

    assert [next(batches), next(batches)] == [[0], [1]]
    with pytest.raises(UserError, match="step 2 is broken"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_closing_the_prefetcher_ends_its_thread(folder: Path) -> None:
    before = threading.active_count()
    batches = Prefetcher(make_source(folder), 0, 1)
    next(batches)
    batches.close()
    batches.close()

    assert threading.active_count() == before


def test_unigram_entropy_is_that_of_the_masked_targets(folder: Path) -> None:
    source = make_source(folder)
    labels = torch.cat([batch.labels for batch in source.dev_batches(5)]).tolist()
    shares = [labels.count(label) / len(labels) for label in set(labels)]

    expected = -sum(share * math.log(share) for share in shares)
    assert masked_unigram_entropy(source, 5) == pytest.approx(expected)
    assert 2 < expected < math.log(200)
