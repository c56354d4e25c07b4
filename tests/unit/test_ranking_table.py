"""The tabular benchmark: what it answers, its file, and what it refuses."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from magicbert.errors import UserError
from magicbert.ranking.table import Table
from magicbert.ranking.table_row import Measure
from magicbert.space import Architecture, Cost

HEAD = "architecture,parameters,flops,loss/short/0,loss/short/1,score/MRPC/0\n"


def alone(name: str, seed: int, loss: float, budget: str = "short") -> dict[str, object]:
    return {
        "kind": "alone", "architecture": name, "seed": seed, "budget": budget, "steps": 10,
        "loss": loss, "accuracy": 0.1 * seed, "parameters": 100, "flops": 2000, "curve": [],
    }  # fmt: skip


def small_table() -> Table:
    rows = [alone("ffn-mha2", 1, 5.5), alone("conv3-ffn", 0, 5.0), alone("ffn-mha2", 0, 5.25)]
    score = {"kind": "downstream", "architecture": "ffn-mha2", "seed": 3, "task": "MRPC",
             "metric": "f1", "score": 0.7}  # fmt: skip
    return Table.from_rows([*rows, alone("ffn-mha2", 0, 4.5, "long"), score, {"kind": "supernet"}])


def test_it_answers_what_was_measured():
    table = small_table()
    first, second = (Architecture.parse(name) for name in ("conv3-ffn", "ffn-mha2"))
    assert table.architectures == (first, second)
    assert table.names("loss") == ("short", "long")
    assert table.loss(second) == pytest.approx(5.375)
    assert table.loss(second, "long") == 4.5
    assert table.accuracy(second) == pytest.approx(0.05)
    assert table[second].cost == Cost(100, 2000.0)
    assert table[second].by_seed("score", "MRPC") == {3: 0.7}
    assert second in table
    assert second.replace(0, "mha2") not in table


def test_a_matrix_holds_the_rows_that_have_every_seed():
    rows, values = small_table().matrix("loss", "short")
    assert [str(row.architecture) for row in rows] == ["ffn-mha2"]
    np.testing.assert_array_equal(values, [[5.25, 5.5]])
    assert small_table().matrix("loss", "none")[1].shape == (2, 0)


def test_what_is_not_there_is_said():
    table = small_table()
    with pytest.raises(UserError, match=r"no row for mha2-mha2; it holds 2 architectures"):
        table.loss(Architecture.parse("mha2-mha2"))
    with pytest.raises(UserError, match=r"no loss of conv3-ffn at budget 'long'.*short, long"):
        table.loss(Architecture.parse("conv3-ffn"), "long")


def test_a_file_reads_back_to_the_same_bits(tmp_path):
    generator = np.random.default_rng(0)
    rows = [
        alone(f"ffn-conv{k}", seed, 5 + generator.normal()) for k in range(9) for seed in range(2)
    ]
    table = Table.from_rows([*rows, alone("ffn-conv3", 0, 1 / 3, "long")])
    table.write(tmp_path / "table.csv")
    assert Table.read(tmp_path / "table.csv") == table
    head = (tmp_path / "table.csv").read_text().splitlines()[0]
    assert head.startswith("architecture,parameters,flops,loss/long/0,loss/short/0,loss/short/1,")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("architecture,flops,parameters\n", "line 1: must begin with architecture, parameters"),
        (HEAD.replace("loss/short/1", "los/short/1"), "column los/short/1: 'los/short/1' is not a"),
        (HEAD.replace("short/1", "short/0"), "stand there twice: loss/short/0"),
        (HEAD + "ffn-mha2,1,2,3,4\n", "line 2: 5 cells, but there are 6 columns"),
        (HEAD + "ffn-MHA,1,2,3,4,\n", r"line 2, column architecture: 'ffn-MHA' is not an arch"),
        (HEAD + "ffn,many,2,3,4,\n", r"column parameters: 'many' is not a whole number"),
        (HEAD + "ffn,-1,2,3,4,\n", r"column parameters: '-1' is not a finite number of at least 0"),
        (HEAD + "ffn,1,inf,3,4,\n", r"column flops: 'inf' is not a finite number"),
        (HEAD + "ffn,1,2,3,4,\nconv3,1,2,nan,4,\n", r"line 3, column loss/short/0: 'nan' is not"),
        (HEAD + "ffn,1,2,3,4,-inf\n", r"column score/MRPC/0: '-inf' is not a finite number$"),
        (HEAD + "ffn,1,2,3,4,\nffn,1,2,3,4,\n", r"line 3, column architecture: 'ffn' is not new"),
        (HEAD + 'ffn,1,2,3,4,"\n', "cannot be read as a CSV file"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path, text, message):
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        Table.read(file)
    assert str(file) in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Table.read(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        Table.read(tmp_path / "bytes.csv")


def test_rows_that_disagree_are_refused():
    with pytest.raises(UserError, match=r"ffn: two rows disagree on loss/short/0"):
        Table.from_rows([alone("ffn", 0, 5.0), alone("ffn", 0, 5.1)])
    with pytest.raises(UserError, match="two rows disagree on parameters"):
        Table.from_rows([alone("ffn", 0, 5.0), {**alone("ffn", 1, 5.0), "parameters": 3}])
    lonely = {"kind": "downstream", "architecture": "ffn", "seed": 0, "task": "a", "score": 1}
    with pytest.raises(UserError, match="not trained alone: ffn"):
        Table.from_rows([lonely])


def test_looking_up_a_table_needs_neither_torch_nor_scipy(tmp_path):
    """What a search in milliseconds rests on: 256 architectures, two budgets, three seeds."""
    names = [
        "-".join(p * 3) for p in itertools.product(("mha2", "ffn", "conv3", "conv5"), repeat=4)
    ]
    rows = [alone(n, s, 5.0 + s, b) for n in names for s in range(3) for b in ("short", "long")]
    Table.from_rows(rows).write(tmp_path / "table.csv")
    program = (
        "import sys; from pathlib import Path; from magicbert.ranking.table import Table\n"
        f"print(len(Table.read(Path({str(tmp_path / 'table.csv')!r}))))\n"
        "print({'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["256", "set()"], done.stderr


def test_measures_name_their_column():
    assert str(Measure("loss", "short", 3)) == "loss/short/3"
