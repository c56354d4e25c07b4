"""``magicbert search`` on a supernet of random weights and a prepared tiny corpus."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.saving import load_supernet, save_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.config.reading import to_yaml
from magicbert.config.roots import PretrainConfig, SearchConfig
from magicbert.config.sections import LatencySection, ModelSection, RunSection, SearchSection
from magicbert.data.manifest import read_manifest
from magicbert.errors import UserError
from magicbert.ranking.table import Table
from magicbert.ranking.table_row import Measure, TableRow
from magicbert.records import read_record
from magicbert.search.latency import LatencyTable
from magicbert.space import Architecture, SearchSpace
from magicbert.stages import prepare, search
from magicbert.trail import read_metrics

SPACE = SearchSpace.uniform(3, ("mha2", "ffn", "conv3"))
MODEL = ModelSection(hidden_size=8, max_length=32, dropout=0.0, attention_dropout=0.0)
SECTION = SearchSection(
    num_rounds=2, samples_per_round=8, num_finalists=6, num_dev_batches=1, num_final_batches=2,
    rows_per_batch=8, num_results=3, drop_fraction=0.4,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished_pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with prepared data and a supernet."""
    root = tmp_path_factory.mktemp("search")
    corpus = write_corpus(root / "corpus.txt", make_documents(120))
    prepare.run(config_for(root, corpus))
    manifest = read_manifest(root / "tiny" / "prepare")
    supernet = build_supernet(SPACE, MODEL, manifest.vocab_size, manifest.pad_id, seed=3)
    pretrain = root / "tiny" / "pretrain"
    save_supernet(pretrain / "supernet", supernet, {"data_digest": manifest.digest})
    (pretrain / "config.yaml").write_text(to_yaml(PretrainConfig(model=MODEL)))
    return root


@pytest.fixture
def root(finished_pretraining: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished_pretraining, tmp_path / "runs"))


def config(root: Path, **changes: object) -> SearchConfig:
    return SearchConfig(
        run=RunSection(root=str(root), name="tiny"),
        search=replace(SECTION, **changes),  # type: ignore[arg-type]
    )


def result(root: Path) -> dict:
    return read_record(root / "tiny" / "search" / "architectures.json", search.SCHEMA)


def test_the_record_holds_results_scores_rounds_and_origin(root: Path) -> None:
    supernet, _ = load_supernet(root / "tiny" / "pretrain" / "supernet")
    model = bert_cost_model(supernet.config, ("mha2", "ffn", "conv3"), 32)
    low, high = model.range(SPACE)
    limit = (low.parameters + high.parameters) // 2
    search.run(config(root, max_parameters=limit))
    record = result(root)
    assert len(record["results"]) == 3
    assert record["limits"] == {
        "max_parameters": limit, "min_parameters": 0, "max_flops": 0.0, "max_latency_ms": 0.0,
    }  # fmt: skip
    for row in record["results"] + record["scored"]:
        cost = model.cost(Architecture.parse(row["architecture"]))
        assert (row["parameters"], row["flops"]) == (cost.parameters, cost.flops)
        assert row["parameters"] <= limit
    losses = [row["loss"] for row in record["results"]]
    assert losses == sorted(losses)
    most = record["rounds"][-1]["num_batches"]
    finals = [row for row in record["scored"] if row["num_batches"] == most]
    assert min(row["loss"] for row in finals) == losses[0]
    metrics = [row for row in read_metrics(root / "tiny" / "search") if row["kind"] == "round"]
    assert [row["num_scored"] for row in metrics] == [r["num_scored"] for r in record["rounds"]]
    assert record["rounds"][0]["dropped"]
    front = record["pareto"]["front"]
    assert front[0]["loss"] == losses[0]
    assert [row["loss"] for row in front] == sorted(row["loss"] for row in front)
    for one, other in itertools.permutations(front, 2):
        better = [one[name] < other[name] for name in ("loss", "parameters", "flops")]
        worse = [one[name] > other[name] for name in ("loss", "parameters", "flops")]
        assert any(better) == any(worse)
    lines = (root / "tiny" / "search" / "pareto.csv").read_text().splitlines()
    assert len(lines) == len(front) + 1
    assert record["origin"]["data_digest"] == read_manifest(root / "tiny" / "prepare").digest


def test_random_baselines_keep_the_limits_and_follow_the_seed(root: Path) -> None:
    supernet, _ = load_supernet(root / "tiny" / "pretrain" / "supernet")
    low, high = bert_cost_model(supernet.config, ("mha2", "ffn", "conv3"), 32).range(SPACE)
    limit = (low.parameters + high.parameters) // 2
    drawn = {}
    for seed in (0, 0, 1):
        search.run(config(root, max_parameters=limit, num_random=3, seed=seed))
        rows = result(root)["random"]
        assert len({row["architecture"] for row in rows}) == 3
        assert all(row["parameters"] <= limit for row in rows)
        assert all(Architecture.parse(row["architecture"]) in SPACE for row in rows)
        assert drawn.setdefault(seed, rows) == rows
        shutil.rmtree(root / "tiny" / "search")
    assert drawn[0] != drawn[1]


def test_a_finished_search_is_not_run_again_and_another_one_is(root: Path) -> None:
    search.run(config(root))
    file = root / "tiny" / "search" / "architectures.json"
    before = file.stat().st_mtime_ns
    search.run(config(root))
    assert file.stat().st_mtime_ns == before
    search.run(config(root, seed=1))
    assert file.stat().st_mtime_ns != before
    assert result(root)["settings"]["seed"] == 1


def test_a_killed_search_goes_on_from_its_scores(root: Path) -> None:
    search.run(config(root))
    whole = result(root)
    folder = root / "tiny" / "search"
    (folder / "architectures.json").unlink()
    lines = (folder / "scores.jsonl").read_text().splitlines()
    (folder / "scores.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])
    search.run(config(root))
    assert result(root) == whole
    again = (folder / "scores.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in again] == [json.loads(line) for line in lines]


def test_limits_out_of_reach_write_nothing(root: Path) -> None:
    with pytest.raises(UserError, match=r"max_parameters 10\).*nearest is .*conv3"):
        search.run(config(root, max_parameters=10))
    assert not (root / "tiny" / "search").exists()


def write_table(folder: Path) -> tuple[Path, list[TableRow]]:
    """Writes a table of 20 architectures, each a little larger and better than the one before."""
    rows = [
        TableRow(path, 100 + 10 * index, 1000 + index, {
            Measure("loss", "short", seed): 3.0 - 0.01 * index + 0.001 * seed for seed in range(2)
        })
        for index, path in enumerate(list(SPACE.enumerate())[:20])
    ]  # fmt: skip
    Table(tuple(rows)).write(folder / "table.csv")
    return folder / "table.csv", rows


def test_a_table_is_searched_without_a_run(tmp_path: Path) -> None:
    file, rows = write_table(tmp_path)
    search.run(config(tmp_path, scorer="table", table=str(file), max_parameters=250))
    record = result(tmp_path)
    assert record["results"][0]["architecture"] == str(rows[15].architecture)
    assert record["results"][0]["loss"] == pytest.approx(2.8505)
    assert record["results"][0]["accuracy"] is None
    assert record["results"][0]["num_batches"] == 2
    listed = {str(row.architecture) for row in rows[:16]}
    assert {row["architecture"] for row in record["scored"]} <= listed
    with pytest.raises(UserError, match=r"max_parameters 10\).*nearest is mha2-mha2-mha2 with 100"):
        search.run(config(tmp_path, scorer="table", table=str(file), max_parameters=10))
    with pytest.raises(UserError, match=r"no losses of budget 'long'.*: short"):
        search.run(config(tmp_path, scorer="table", table=str(file), table_budget="long"))


def prefers_attention(architecture: Architecture, batch: int) -> float:
    return 5.0 + 0.1 * batch - sum(name == "mha2" for name in architecture)


def broken(architecture: Architecture, batch: int) -> str:
    return "good"


NOT_A_FUNCTION = 7


def test_a_function_of_the_users_scores_in_the_space_of_the_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_scorer", sys.modules[__name__])
    search.run(config(root, scorer="callable", callable="my_scorer:prefers_attention"))
    record = result(root)
    assert record["results"][0]["architecture"] == "mha2-mha2-mha2"
    assert record["results"][0]["loss"] == pytest.approx(2.05)
    assert record["results"][0]["parameters"] > 0
    with pytest.raises(UserError, match="returned 'good' for"):
        search.run(config(root, scorer="callable", callable="my_scorer:broken"))
    for name in ("nothing_here", "NOT_A_FUNCTION"):
        with pytest.raises(UserError, match=f"my_scorer:{name}"):
            search.run(config(root, scorer="callable", callable=f"my_scorer:{name}"))


def test_a_supernet_of_other_data_is_refused(root: Path) -> None:
    folder = root / "tiny" / "pretrain" / "supernet"
    supernet, _ = load_supernet(folder)
    save_supernet(folder, supernet, {"data_digest": "0" * 64})
    with pytest.raises(UserError, match="trained on other data"):
        search.run(config(root))
    assert not (root / "tiny" / "search").exists()


def test_without_a_supernet_the_missing_file_is_named(root: Path) -> None:
    shutil.rmtree(root / "tiny" / "pretrain")
    with pytest.raises(UserError, match=r"supernet\.json: no such file"):
        search.run(config(root))


def test_a_limit_on_latency_is_measured_kept_and_held_with_its_error(root: Path) -> None:
    quick = LatencySection(seconds=0.005, num_checks=3, num_threads=1)
    everything = SECTION.samples_per_round * 4

    def searching(folder: Path, limit: float, **changes: object) -> SearchConfig:
        asked = config(folder, max_latency_ms=limit, samples_per_round=everything)
        return replace(asked, latency=replace(quick, **changes))  # type: ignore[arg-type]

    search.run(searching(root, 1e6))
    folder = root / "tiny" / "search"
    kept = (folder / "latency.json").read_bytes()
    table = LatencyTable.from_json(read_record(folder / "latency.json", "magicbert/latency/1"))
    assert set(table.operators) == {"mha2", "ffn", "conv3"}
    assert len(table.checks) == 3
    assert table.facts["rows"] == 1
    assert table.facts["length"] == 32
    assert table.facts["num_threads"] == 1
    record = result(root)
    for row in record["scored"]:
        predicted = table.predict(Architecture.parse(row["architecture"]))
        assert row["latency_ms"] == predicted / 1e6
    assert record["pareto"]["objectives"] == ["loss", "parameters", "flops", "latency"]
    median = sorted(row["latency_ms"] for row in record["scored"])[len(record["scored"]) // 2]
    limit = median * (1 + table.error_bound)
    search.run(searching(root, limit))
    assert (folder / "latency.json").read_bytes() == kept
    assert all(row["latency_ms"] <= median * (1 + 1e-9) for row in result(root)["scored"])
    assert result(root)["limits"]["max_latency_ms"] == limit
    with pytest.raises(UserError, match=r"max_latency_ms .*the nearest is .* ms"):
        search.run(searching(root, 1e-6))
    given = root / "given.json"
    given.write_bytes(kept)
    with pytest.raises(UserError, match=r"given\.json: latencies of .*: rows is 1 there and 2"):
        search.run(searching(root, limit, file=str(given), rows=2))
    search.run(searching(root, 1e6, rows=2))
    assert read_record(folder / "latency.json", "magicbert/latency/1")["facts"]["rows"] == 2
    with pytest.raises(UserError, match=r"latency\.length: 33 tokens, but the encoder has 32"):
        search.run(searching(root, limit, length=33))
    with pytest.raises(UserError, match="it names no encoder"):
        search.run(replace(searching(root, limit), search=replace(
            SECTION, scorer="table", table=str(write_table(root)[0]), max_latency_ms=1.0,
        )))  # fmt: skip
