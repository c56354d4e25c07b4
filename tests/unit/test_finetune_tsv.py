"""GLUE files: what is wrong is named with file, line and column, and no row is lost in silence."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from magicbert.errors import UserError
from magicbert.finetune.glue_folder import find_file, read_folder
from magicbert.finetune.tasks import TASKS

COLA_ROWS = "src\t1\t\tGood .\nsrc\t0\t*\tBad .\n"
RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"
RTE_ROWS = "0\ta\tb\tentailment\n1\tc\td\tnot_entailment\n"
STSB_HEADER = "index\tsentence1\tsentence2\tscore\n"


def write_task(root: Path, task: str, train: str | bytes, dev: str | bytes = b"") -> Path:
    folder = root / TASKS[task].folder
    folder.mkdir(parents=True)
    for stem, content in (("train", train), ("dev", dev or train)):
        data = content.encode() if isinstance(content, str) else content
        (folder / f"{stem}.tsv").write_bytes(data)
    return root


def test_headerless_cola_and_label_numbers(tmp_path: Path) -> None:
    data = read_folder(TASKS["cola"], write_task(tmp_path, "cola", COLA_ROWS))
    assert data.train.texts == (("Good .", "Bad ."),)
    assert data.train.labels == (1, 0)
    assert data.train.source.num_rows == 2


@pytest.mark.parametrize("text", ["NA", "null", "nan", "None", "", '"', 'a "quoted', "a\u2028b"])
def test_text_stays_as_it_is(tmp_path: Path, text: str) -> None:
    rows = f"0\t{text}\tb\tentailment\n1\t{text}\tb\tentailment\n"
    data = read_folder(TASKS["rte"], write_task(tmp_path, "rte", RTE_HEADER + rows))
    assert data.train.texts[0] == (text, text)


def test_windows_line_ends_byte_order_mark_and_missing_last_line_feed(tmp_path: Path) -> None:
    content = "\ufeff" + (RTE_HEADER + RTE_ROWS).replace("\n", "\r\n").removesuffix("\r\n")
    data = read_folder(TASKS["rte"], write_task(tmp_path, "rte", content))
    assert data.train.labels == (0, 1)


@pytest.mark.parametrize(
    ("content", "place", "what"),
    [
        (RTE_HEADER + "0\ta\tb\n", "train.tsv:2:4:", "ragged row: 3 columns where 4"),
        (RTE_HEADER + RTE_ROWS + "2\ta\tb\tc\tentailment\n", "train.tsv:4:5:", "5 columns"),
        (RTE_HEADER + RTE_ROWS + "\n", "train.tsv:4:2:", "ragged row: 1 columns"),
        (RTE_HEADER + "0\ta\tb\tmaybe\n", "train.tsv:2:4:", "unknown label 'maybe'"),
        (RTE_HEADER, "train.tsv:2:1:", "no rows"),
        ("", "train.tsv:1:1:", "empty"),
        (" \n\n", "train.tsv:1:1:", "empty"),
        ("index\tsentence1\tlabel\n0\ta\tentailment\n", "train.tsv:1:1:", "no column 'sentence2'"),
        ("index\tsentence1\tsentence2\n0\ta\tb\n", "train.tsv:1:1:", "no column 'label'"),
        ("a\ta\n1\t2\n", "train.tsv:1:1:", "names a column twice"),
        ((RTE_HEADER + "0\ta\t").encode() + b"\xff\tentailment\n", "train.tsv:2:3:", "not UTF-8"),
        (RTE_HEADER + "0\ta\0\tb\tentailment\n", "train.tsv:2:2:", "NUL byte"),
    ],
)
def test_bad_file_is_refused_with_its_place(
    tmp_path: Path, content: str | bytes, place: str, what: str
) -> None:
    root = write_task(tmp_path, "rte", content)
    with pytest.raises(UserError) as caught:
        read_folder(TASKS["rte"], root)
    assert place in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize("score", ["five", "", "nan", "inf", "5.1", "-0.1"])
def test_bad_target_is_refused_with_its_place(tmp_path: Path, score: str) -> None:
    root = write_task(tmp_path, "stsb", STSB_HEADER + f"0\ta\tb\t3.5\n1\ta\tb\t{score}\n")
    with pytest.raises(UserError, match=r"train\.tsv:3:4:"):
        read_folder(TASKS["stsb"], root)


def test_qqp_skips_and_reports_the_known_kind_of_broken_row(tmp_path: Path) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    good = "1\t2\t3\tWhy ?\tWhat ?\t0\n"
    broken = '"\tWhat is it ?\t0\n'
    root = write_task(tmp_path, "qqp", header + good + broken + good)
    data = read_folder(TASKS["qqp"], root)
    assert len(data.train) == 2
    assert data.train.source.skipped_lines == (3,)
    assert data.describe()["train"]["skipped_ragged_lines"] == [3]
    root = write_task(tmp_path / "worse", "qqp", header + good + 33 * broken)
    with pytest.raises(UserError, match=r"train\.tsv:35:4: ragged row"):
        read_folder(TASKS["qqp"], root)


def test_file_preference_and_gzip(tmp_path: Path) -> None:
    for name in ("train-derived.tsv.gz", "train-bimpm.tsv", "train-subset.tsv.gz", "train.tsv.gz"):
        (tmp_path / name).write_bytes(gzip.compress((RTE_HEADER + RTE_ROWS).encode()))
        found = find_file(tmp_path, "train")
        assert found is not None
        assert found.name == name


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    root = write_task(tmp_path, "rte", RTE_HEADER + RTE_ROWS)
    packed = gzip.compress((RTE_HEADER + RTE_ROWS).encode())
    (root / "RTE" / "train.tsv").unlink()
    for content in (packed[:-12], b"not gzip at all"):
        (root / "RTE" / "train.tsv.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"train\.tsv\.gz: damaged or truncated"):
            read_folder(TASKS["rte"], root)


def test_missing_file_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train file; looked for train, train-subset"):
        read_folder(TASKS["sst2"], tmp_path)


def test_mnli_without_its_mismatched_half(tmp_path: Path) -> None:
    folder = tmp_path / "MNLI"
    folder.mkdir()
    rows = "index\tsentence1\tsentence2\tgold_label\n0\ta\tb\tneutral\n"
    for name in ("train", "dev_matched", "test_matched"):
        (folder / f"{name}.tsv").write_text(rows.replace("\tgold_label", "\tx", name[0] == "t"))
    (folder / "train.tsv").write_text(rows)
    data = read_folder(TASKS["mnli"], tmp_path)
    assert [item.part.submission for item in data.parts] == ["MNLI-m"]
    assert data.parts[0].test is not None
    assert data.parts[0].test.labels is None
    (folder / "dev_mismatched.tsv").write_text(rows)
    assert len(read_folder(TASKS["mnli"], tmp_path).parts) == 2
