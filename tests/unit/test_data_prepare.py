"""The whole of ``magicbert prepare`` on a small corpus."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import config_for, make_documents, prepare_folder, write_corpus

from magicbert.data import pieces, preparation
from magicbert.data.documents import clean
from magicbert.data.manifest import Manifest, read_manifest
from magicbert.data.shards import RowStore, segment_ids_of
from magicbert.data.survey import duplicates
from magicbert.data.tokenizer import read_tokenizer
from magicbert.errors import UserError
from magicbert.stages import prepare

DOCUMENTS = make_documents(300)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.txt", DOCUMENTS)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts even a small corpus into several pieces and batches."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 8192)
    monkeypatch.setattr(pieces, "BATCH_BYTES", 2000)


def rows_of(folder: Path, split: str) -> np.ndarray:
    manifest = read_manifest(folder)
    store = RowStore(folder, manifest.shards[split], manifest.length)
    return store.take(np.arange(len(store)))


def packed_texts(folder: Path, split: str) -> list[str]:
    """Decodes every segment of every row."""
    manifest, backend = read_manifest(folder), read_tokenizer(folder / "tokenizer").backend
    rows = rows_of(folder, split)
    segments = segment_ids_of(rows, cls_id=manifest.cls_id, pad_id=manifest.pad_id)
    return [
        backend.decode(row[ids == number].tolist())
        for row, ids in zip(rows, segments, strict=True)
        for number in range(1, ids.max() + 1)
    ]


def digest(folder: Path) -> str:
    return read_manifest(folder).digest


def test_the_manifest_says_what_is_there(tmp_path: Path, corpus: Path) -> None:
    folder = prepare_folder(config_for(tmp_path, corpus))
    manifest = read_manifest(folder)
    tokenizer = read_tokenizer(folder / "tokenizer")

    assert manifest.vocab_size == tokenizer.vocab_size == 200
    assert (manifest.pad_id, manifest.cls_id, manifest.sep_id, manifest.mask_id) == (0, 2, 3, 4)
    assert manifest.special_ids == (0, 1, 2, 3, 4)
    assert sum(manifest.num_documents.values()) == len(DOCUMENTS)
    assert 10 < manifest.num_documents["valid"] < 60
    for split in ("train", "valid"):
        rows = rows_of(folder, split)
        assert rows.shape == (manifest.num_rows[split], 32)
        assert rows.dtype == np.uint16
        num_separators = manifest.num_documents[split] - 1
        content = (rows != 0).sum() - 2 * len(rows) - num_separators
        assert content == manifest.num_tokens[split]
    assert all(file.num_rows == 50 for file in manifest.shards["train"][:-1])
    assert not (folder / "work").exists()


def test_full_rows_hold_every_document_in_order(tmp_path: Path, corpus: Path) -> None:
    folder = prepare_folder(config_for(tmp_path, corpus))
    backend = read_tokenizer(folder / "tokenizer").backend
    found = []
    for split in ("train", "valid"):
        rows = rows_of(folder, split)
        stream = rows[:, 1:-1].reshape(-1).tolist()
        text = backend.decode([t for t in stream if t != 0], skip_special_tokens=False)
        found.append([" ".join(part.split()) for part in text.split("[SEP]") if part.strip()])
    expected = [backend.decode(backend.encode(text).ids) for text in DOCUMENTS]
    expected = [" ".join(text.split()) for text in expected]

    assert sorted(found[0] + found[1]) == sorted(expected)
    assert found[0] == [text for text in expected if text in set(found[0])]


def test_packed_documents_are_whole(tmp_path: Path, corpus: Path) -> None:
    shards = {"layout": "packed", "length": 512}
    folder = prepare_folder(config_for(tmp_path, corpus, shards=shards))
    backend = read_tokenizer(folder / "tokenizer").backend

    texts = packed_texts(folder, "train") + packed_texts(folder, "valid")
    assert sorted(texts) == sorted(backend.decode(backend.encode(text).ids) for text in DOCUMENTS)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("layout", ["full", "packed"])
def test_workers_and_pieces_do_not_change_the_result(
    tmp_path: Path, corpus: Path, layout: str
) -> None:
    second = write_corpus(tmp_path / "second.txt", make_documents(100, seed=1))
    digests = {
        digest(
            prepare_folder(
                config_for(
                    tmp_path / str(workers), corpus, second,
                    shards={"num_workers": workers, "layout": layout},
                )
            )
        )
        for workers in (1, 2)
    }  # fmt: skip

    assert len(digests) == 1


class StopError(Exception):
    """Stands for a kill."""


def stop_after(function_of: object, name: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a function raise after some calls."""
    original, made = getattr(function_of, name), iter(range(calls))

    def limited(*arguments: object, **named: object) -> object:
        if next(made, None) is None:
            raise StopError
        return original(*arguments, **named)

    monkeypatch.setattr(function_of, name, limited)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("place", "name", "calls"),
    [
        (preparation, "plan_pieces", 0),
        (pieces, "_write_piece", 1),
        (pieces, "_write_piece", 3),
        (preparation, "write_split", 1),
        (preparation, "write_manifest", 0),
    ],
)
def test_a_stopped_preparation_goes_on_to_the_same_result(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: object,
    name: str,
    calls: int,
) -> None:
    whole = digest(prepare_folder(config_for(tmp_path / "whole", corpus)))
    config = config_for(tmp_path / "stopped", corpus)
    with monkeypatch.context() as patch:
        stop_after(place, name, calls, patch)
        with pytest.raises(StopError):
            prepare.run(config)
    folder = tmp_path / "stopped" / "tiny" / "prepare"
    with pytest.raises(UserError, match="no prepared data"):
        read_manifest(folder)

    assert digest(prepare_folder(config)) == whole


@pytest.mark.usefixtures("small_pieces")
def test_finished_pieces_and_the_tokenizer_are_reused_unless_damaged(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tmp_path / "a", corpus)
    with monkeypatch.context() as patch:
        stop_after(preparation, "write_split", 0, patch)
        with pytest.raises(StopError):
            prepare.run(config)
    files = sorted((tmp_path / "a" / "tiny" / "prepare" / "work" / "pieces").glob("*.arrow"))
    assert len(files) > 2
    damaged = bytearray(files[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    files[0].write_bytes(bytes(damaged))
    written: list[Path] = []
    original = pieces._write_piece
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "train_tokenizer", None)
        patch.setattr(
            pieces,
            "_write_piece",
            lambda piece, *rest: (written.append(piece.path), original(piece, *rest)),
        )
        folder = prepare_folder(config)

    assert written == [files[0]]
    assert digest(folder) == digest(prepare_folder(config_for(tmp_path / "b", corpus)))


def test_a_prepared_folder_is_left_alone(
    tmp_path: Path, corpus: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_folder(config_for(tmp_path, corpus))
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr(logging.getLogger("magicbert"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="magicbert"):
        prepare.run(config_for(tmp_path, corpus, shards={"num_workers": 2}))

    assert "already prepared" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps


def test_other_settings_or_sources_are_refused_with_a_difference(
    tmp_path: Path, corpus: Path
) -> None:
    prepare_folder(config_for(tmp_path, corpus))
    with pytest.raises(UserError, match=r"shards\.length: prepared with 32, asked for 64"):
        prepare.run(config_for(tmp_path, corpus, shards={"length": 64}))
    write_corpus(corpus, DOCUMENTS[:-1])
    with pytest.raises(UserError, match=r"corpus\.txt: changed since"):
        prepare.run(config_for(tmp_path, corpus))
    write_corpus(corpus, DOCUMENTS)
    prepare.run(config_for(tmp_path, corpus))  # the same content again, only its time is new


def test_damaged_rows_are_noticed(tmp_path: Path, corpus: Path) -> None:
    config = config_for(tmp_path, corpus)
    folder = prepare_folder(config)
    shard = folder / "train" / "00000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"00000\.arrow: damaged"):
        prepare.run(config)
    shard.write_bytes(bytes(data[:-8]))
    with pytest.raises(UserError, match=r"00000\.arrow: \d+ bytes long, the manifest says"):
        read_manifest(folder)
    shard.unlink()
    with pytest.raises(UserError, match=r"00000\.arrow: missing"):
        read_manifest(folder)


def skipped(manifest: Manifest) -> dict[tuple[str, str], int]:
    return {(Path(item.source).name, item.reason): item.count for item in manifest.skipped}


def test_duplicates_go_wherever_they_stand(tmp_path: Path, corpus: Path) -> None:
    again = write_corpus(tmp_path / "again.txt", [*DOCUMENTS[:20], "\x07", *DOCUMENTS[:5]])
    once = prepare_folder(config_for(tmp_path / "once", corpus))
    twice = prepare_folder(config_for(tmp_path / "twice", corpus, again))

    assert digest(once) == digest(twice)
    assert skipped(read_manifest(twice)) == {
        ("again.txt", "duplicate document"): 25,
        ("again.txt", "empty document"): 1,
    }
    kept = config_for(tmp_path / "kept", corpus, again, corpus={"deduplicate": False})
    assert sum(read_manifest(prepare_folder(kept)).num_documents.values()) == 325


def test_only_the_first_of_equal_digests_is_kept() -> None:
    digests = np.array([[3, 1], [1, 1], [3, 1], [3, 2], [1, 1], [3, 1]], dtype=np.uint64)

    assert duplicates(digests).tolist() == [False, False, True, False, True, True]


def test_the_split_depends_on_the_document_alone(tmp_path: Path, corpus: Path) -> None:
    shards = {"layout": "packed", "length": 512}
    reordered = write_corpus(tmp_path / "b.txt", DOCUMENTS[::-1][:250])
    first = prepare_folder(config_for(tmp_path / "1", corpus, shards=shards))
    second = prepare_folder(config_for(tmp_path / "2", reordered, shards=shards))

    assert set(packed_texts(second, "valid")) <= set(packed_texts(first, "valid"))
    assert set(packed_texts(first, "valid")).isdisjoint(packed_texts(first, "train"))


def test_valid_sources_are_the_valid_split_and_never_trained_on(
    tmp_path: Path, corpus: Path
) -> None:
    held_out = write_corpus(tmp_path / "valid.txt", [*make_documents(30, seed=5), DOCUMENTS[7]])
    config = config_for(tmp_path, corpus, corpus={"valid_sources": (str(held_out),)})
    manifest = read_manifest(prepare_folder(config))

    assert manifest.num_documents == {"train": len(DOCUMENTS) - 1, "valid": 31}
    assert skipped(manifest) == {("corpus.txt", "duplicate document"): 1}


def test_max_documents_bounds_the_reading(tmp_path: Path, corpus: Path) -> None:
    broken = tmp_path / "z.txt"
    broken.write_bytes(b"\xff")
    config = config_for(tmp_path, corpus, broken, corpus={"max_documents": 100})
    manifest = read_manifest(prepare_folder(config))

    assert sum(manifest.num_documents.values()) == 100
    assert [Path(source["name"]).name for source in manifest.sources] == ["corpus.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no document in"),
        (b" \n\n \n", "no document in"),
        (b"one\n\ntwo\n\n\xff\n", "byte 10: not UTF-8"),
        (b"only one document", "split"),
    ],
)
def test_a_bad_corpus_leaves_no_half_written_data(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        prepare.run(config_for(tmp_path, path))

    folder = tmp_path / "tiny" / "prepare"
    left = {path.name for path in folder.iterdir()}
    assert left <= {"config.yaml", "environment.json", "metrics.jsonl", "log.txt"}


def test_a_missing_corpus_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt: no such file"):
        prepare.run(config_for(tmp_path, tmp_path / "gone.txt"))

    assert not (tmp_path / "tiny").exists()


def test_a_corpus_that_changes_under_the_reader_is_noticed(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = preparation.make_tokenizer

    def change_then(*arguments: object) -> str:
        result = original(*arguments)  # type: ignore[arg-type]
        write_corpus(corpus, [*DOCUMENTS[:50], "something else", *DOCUMENTS[51:]])
        return result

    monkeypatch.setattr(preparation, "make_tokenizer", change_then)
    with pytest.raises(UserError, match=r"corpus\.txt: changed while it was being prepared"):
        prepare.run(config_for(tmp_path, corpus))


@pytest.mark.usefixtures("small_pieces")
def test_the_tokenizer_sample_is_bounded_and_spread(tmp_path: Path, corpus: Path) -> None:
    from magicbert.data.selection import tokenizer_sample
    from magicbert.data.skipping import Skips
    from magicbert.data.sources import resolve_sources
    from magicbert.data.survey import survey_corpus

    config = config_for(tmp_path, corpus)
    units = resolve_sources(config.corpus.sources, Skips(""))
    survey = survey_corpus(units, [], config.corpus, num_workers=1)
    size = sum(len(clean(text)) for text in DOCUMENTS)
    sample = tokenizer_sample(survey, config.corpus, size // 4)
    places = [DOCUMENTS.index(text) for text in sample]

    assert size // 6 < sum(map(len, sample)) <= size // 4
    assert max(np.diff([0, *places, len(DOCUMENTS)])) < 60
    whole = tokenizer_sample(survey, config.corpus, 10 * size)
    assert len(whole) == int((survey.fates == 1).sum())


def test_the_trail_holds_config_metrics_and_what_was_skipped(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "c.txt", [*DOCUMENTS, DOCUMENTS[0]])
    folder = prepare_folder(config_for(tmp_path, source))
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()

    assert json.loads(line)["digest"] == digest(folder)
    assert "c.txt: 1 x duplicate document" in (folder / "log.txt").read_text()
    assert "vocab_size: 200" in (folder / "config.yaml").read_text()


@pytest.fixture(autouse=True)
def quiet_logger() -> Iterator[None]:
    """Leaves the package's logger as it was."""
    logger = logging.getLogger("magicbert")
    level = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(level)
