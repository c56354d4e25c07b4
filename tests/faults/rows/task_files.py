"""F3: files of fine-tuning tasks. (SQuAD is not read yet: its rows come with it.)"""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from matrix import Finding, mutant, peer, row

from magicbert.errors import UserError
from magicbert.finetune import tsv
from magicbert.finetune.glue_folder import read_folder
from magicbert.finetune.tasks import GLUE_TASKS, Task

# What stock readers have lost, converted or split.
TEXTS = (
    "plain words", '"', 'a "b', '"quoted"', "NA", "null", "nan", "None", "", " ", "0", "1e5", "#",
    "a\u2028b", "a\x85b", "a\x0cb", "it's", "\\", "\\n", "é", "a\rb", "<br>", "\ufeffx",
    ",", "x" * 999,
)  # fmt: skip
NUM_ROWS = 20
KINDS = ["short", "long", "label", "range", "empty line", "header again"]
PLACE = re.compile(r"\.tsv(\.gz)?:\d+:\d+: ")


def columns_of(task: Task) -> tuple[str, ...]:
    return task.header or ("index", *task.texts, task.label)


def good_rows(task: Task, dice: random.Random) -> list[list[str]]:
    """Returns rows of awkward but lawful texts."""
    labels = task.labels or ("0", "2.5", "5.000")
    rows = []
    for number in range(NUM_ROWS):
        row = [str(number)] * len(columns_of(task))
        for name in task.texts:
            row[columns_of(task).index(name)] = dice.choice(TEXTS)
        row[columns_of(task).index(task.label)] = dice.choice(labels)
        rows.append(row)
    return rows


def spoiled(task: Task, rows: list[list[str]], dice: random.Random) -> tuple[str, list[list[str]]]:
    """Returns what was done to one row, and the rows."""
    place = dice.randrange(len(rows))
    rows = [list(row) for row in rows]
    label = columns_of(task).index(task.label)
    kind = dice.choice(["none"] * 6 + KINDS)
    if kind == "short":
        rows[place] = rows[place][:-1]
    elif kind == "long":
        rows[place].append("extra")
    elif kind == "label":
        rows[place][label] = dice.choice(["entailmnt", "-100", "7", "NaN", "inf", "", " 1", "１"])
    elif kind == "range":
        rows[place][label] = dice.choice(["5.01", "-0.01", "99", "1e999"])
    elif kind == "empty line":
        rows.insert(place, [""])
    elif kind == "header again":
        rows.insert(place, list(columns_of(task)))
    return kind, rows


def encoded(task: Task, rows: list[list[str]], dice: random.Random) -> tuple[str, bytes]:
    """Returns what was done to the bytes of the file, and the bytes."""
    lines = ["\t".join(row) for row in rows]
    if not task.header:
        lines.insert(0, "\t".join(columns_of(task)))
    data = ("\n".join(lines) + "\n").encode()
    kind = dice.choice(["none"] * 4 + ["crlf", "bom", "no end", "nul", "latin", "utf-16", "flip",
                                       "cut", "empty"])  # fmt: skip
    place = dice.randrange(len(data))
    changes: dict[str, Callable[[], bytes]] = {
        "none": lambda: data,
        "crlf": lambda: data.replace(b"\n", b"\r\n"),
        "bom": lambda: b"\xef\xbb\xbf" + data,
        "no end": lambda: data[:-1],
        "nul": lambda: data[:place] + b"\0" + data[place:],
        "latin": lambda: data[:place] + b"\xe9" + data[place:],
        "utf-16": lambda: data.decode().encode("utf-16"),
        "flip": lambda: data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)])
        + data[place + 1 :],
        "cut": lambda: data[:place],
        "empty": lambda: b"",
    }  # fmt: skip
    return kind, changes[kind]()


def expected_rows(task: Task, data: bytes) -> list[list[str]]:
    """Reads the file by the plainest rule: a line feed ends a row, a tab a field."""
    lines = data.decode("utf-8-sig").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    fields = [line.removesuffix("\r").split("\t") for line in lines]
    return fields if task.header else fields[1:]


def judge(task: Task, data: bytes, folder: Path) -> str:
    """Returns ``used``, ``refused``, or what is wrong."""
    place = folder / task.folder
    place.mkdir(exist_ok=True)
    for part in ("train", *(part.dev for part in task.parts)):
        (place / f"{part}.tsv").write_bytes(data)
    try:
        found = read_folder(task, folder).train
    except UserError as error:
        return "refused" if PLACE.search(str(error)) else f"no place: {error}"
    except Exception as error:
        return f"traceback {type(error).__name__}: {error}"
    rows = expected_rows(task, data)
    if len(found) + len(found.source.skipped_lines) != len(rows):
        return f"lost {len(rows) - len(found)} rows"
    kept = [row for row in rows if len(row) == len(columns_of(task))]
    for position, name in enumerate(task.texts):
        column = columns_of(task).index(name) if task.header else None
        header = data.decode("utf-8-sig").split("\n")[0].removesuffix("\r").split("\t")
        column = header.index(name) if column is None else column
        if [row[column] for row in kept] != list(found.texts[position]):
            return "text changed"
    return "used"


def fuzz(folder: Path, num_files: int) -> Finding:
    """Reads many files of every task."""
    dice = random.Random(20220523)
    outcomes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for number in range(num_files):
        task = GLUE_TASKS[number % len(GLUE_TASKS)]
        row_kind, rows = spoiled(task, good_rows(task, dice), dice)
        byte_kind, data = encoded(task, rows, dice)
        outcome = judge(task, data, folder)
        outcomes[outcome.split(":")[0]] += 1
        examples.setdefault(outcome.split(":")[0], f"{task.name} {row_kind} {byte_kind} {outcome}")
    tracebacks = sum(count for name, count in outcomes.items() if name.startswith("traceback"))
    wrong = num_files - tracebacks - outcomes["used"] - outcomes["refused"]
    figure = (
        f"{num_files} files of 9 tasks ({outcomes['used']} read, {outcomes['refused']} refused "
        f"with line and field): {tracebacks} tracebacks, {wrong} lose or change rows in silence"
    )
    bad = [text for name, text in examples.items() if name not in ("used", "refused")]
    is_fine = not bad and outcomes["used"] > 0
    return Finding(is_fine, "; ".join([figure, *bad[:3]]), outcomes["refused"])


def damaged_archives(folder: Path) -> list[str]:
    """Returns what is wrong with the reading of cut and flipped ``.tsv.gz`` files."""
    packed = gzip.compress(b"".join(b"%d\tsome words\t0\n" % number for number in range(3000)))
    wrong = []
    for number in range(40):
        place = len(packed) * number // 40
        data = packed[:place] if number % 2 else packed[:place] + b"\xff" + packed[place + 1 :]
        (folder / "x.tsv.gz").write_bytes(data)
        try:
            num_rows = len(tsv.read_table(folder / "x.tsv.gz", ("n", "text", "label")).rows)
            if num_rows != 3000:
                wrong.append(f"{num_rows} rows")
        except UserError:
            pass
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
    return wrong


@row(
    "F3",
    fault="GLUE files with stray quotes, NA, short and long rows, wrong labels, bad bytes, "
    "bare CR, byte-order marks, cut and flipped (and .gz)",
    expected="each row used as it stands or reported with file, line and field",
    tier="P",
)
def task_files(folder: Path, is_thorough: bool) -> Finding:
    finding = fuzz(folder, 9000 if is_thorough else 450)
    wrong = damaged_archives(folder)
    if wrong:
        return Finding(False, f"{finding.figure}; gz: {wrong[:3]}", finding.num_fired)
    return finding


@mutant("F3", "lines end where Python's splitlines ends them")
def with_splitlines(folder: Path, is_thorough: bool) -> Finding:
    with patch.object(tsv, "split_lines", lambda path, text: text.splitlines()):
        return fuzz(folder, 450)


@mutant("F3", "ragged rows are left out in silence")
def with_silent_skips(folder: Path, is_thorough: bool) -> Finding:
    true_table = tsv.Table

    def silent(path: Path, digest: str, columns: object, rows: object, lines: object, _: object):
        return true_table(path, digest, columns, rows, lines, ())

    lenient = {"max_ragged_rows": 10**9}

    def read(path: Path, header: tuple[str, ...] = (), max_ragged_rows: int = 0) -> tsv.Table:
        return tsv.read_table(path, header, **lenient)

    with (
        patch.object(tsv, "Table", silent),
        patch("magicbert.finetune.glue_folder.read_table", read),
    ):
        return fuzz(folder, 450)


def write_stray_quotes(file: Path) -> None:
    """Writes 1000 rows, two of which hold a lone quote."""
    rows = [f"{number}\tsentence number {number}\t{number % 2}" for number in range(1000)]
    rows[10] = '10\t"unbalanced quote\t0'
    rows[700] = '700\tother " quote"\t0'
    file.write_text("\n".join(["idx\tsentence\tlabel", *rows]) + "\n")


@peer("F3", "datasets, two stray quotes in 1000 rows")
def with_datasets(folder: Path) -> str:
    import datasets

    write_stray_quotes(folder / "a.tsv")
    datasets.disable_progress_bars()
    found = datasets.load_dataset(
        "csv", data_files=str(folder / "a.tsv"), sep="\t", split="train",
        cache_dir=str(folder / "cache"),
    )  # fmt: skip
    return f"{len(found)} of 1000 rows, no warning"


@peer("F3", "pandas, the same file")
def with_pandas(folder: Path) -> str:
    import pandas

    write_stray_quotes(folder / "a.tsv")
    return f"{len(pandas.read_csv(folder / 'a.tsv', sep=chr(9)))} of 1000 rows, no warning"
