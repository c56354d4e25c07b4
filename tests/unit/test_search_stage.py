"""``magicbert search`` on a supernet of random weights and a prepared tiny corpus."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.saving import load_supernet, save_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.config.reading import to_yaml
from magicbert.config.roots import PretrainConfig, SearchConfig
from magicbert.config.sections import ModelSection, RunSection, SearchSection
from magicbert.data.manifest import read_manifest
from magicbert.errors import UserError
from magicbert.records import read_record
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
    assert record["limits"] == {"max_parameters": limit, "min_parameters": 0, "max_flops": 0.0}
    for row in record["results"] + record["scored"]:
        cost = model.cost(Architecture.parse(row["architecture"]))
        assert (row["parameters"], row["flops"]) == (cost.parameters, cost.flops)
        assert row["parameters"] <= limit
    losses = [row["loss"] for row in record["results"]]
    assert losses == sorted(losses)
    finals = [row for row in record["scored"] if row["round"] == len(record["rounds"])]
    assert min(row["loss"] for row in finals) == losses[0]
    metrics = [row for row in read_metrics(root / "tiny" / "search") if row["kind"] == "round"]
    assert [row["num_scored"] for row in metrics] == [r["num_scored"] for r in record["rounds"]]
    assert record["rounds"][0]["dropped"]
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
