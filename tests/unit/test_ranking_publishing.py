"""What a study leaves beside its rows, from the first row to the last."""

from __future__ import annotations

import logging

import pytest
from synthetic_study import alone_rows, downstream_rows, supernet_row

from magicbert.ranking.table import Table
from magicbert.records import read_record
from magicbert.stages.ranking_result import publish


def test_result_table_and_pictures_stand_beside_the_rows(tmp_path, capsys, caplog):
    # A hand's breadth of architectures, as a test of the whole chain has them.
    few = [row["architecture"] for row in alone_rows(1)[:4]]
    rows = [row for row in alone_rows() if row["architecture"] in few]
    for seed in (0, 1):
        row = supernet_row("spos", seed, 1.0)
        rows.append({**row, "scores": {name: row["scores"][name] for name in few}})
    rows += downstream_rows(num_architectures=3)
    with caplog.at_level(logging.INFO, logger="magicbert"):
        publish(tmp_path, rows)
    result = read_record(tmp_path / "result.json", "magicbert/analysis/2")
    assert result["target"] == "ranking"
    assert [row["num_architectures"] for row in result["rows"]] == [4, 4]
    assert len(Table.read(tmp_path / "tabular.csv")) == 4
    assert {file.stem for file in tmp_path.glob("*.svg")} == {"tau", "scatter", "curves"}
    assert "Supernets at default settings" in capsys.readouterr().out
    assert "no supernet of MAGIC-AT at default settings" in caplog.text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_first_models_make_a_result(tmp_path, count):
    scored = supernet_row("spos", 0, 1.0)
    few = [row["architecture"] for row in alone_rows(1)[:count]]
    rows = [*alone_rows(1)[:count], {**scored, "scores": {n: scored["scores"][n] for n in few}}]
    publish(tmp_path, rows)
    assert len(read_record(tmp_path / "result.json", "magicbert/analysis/2")["rows"]) == 1


def test_before_the_first_model_there_is_nothing_to_say(tmp_path):
    publish(tmp_path, [supernet_row("spos", 0, 1.0)])
    assert not list(tmp_path.iterdir())
