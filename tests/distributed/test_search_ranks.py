"""A search on several ranks: their shares together are one rank's work, and so is the result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import run_ranks
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert.bert.saving import save_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.config.reading import to_yaml
from magicbert.config.roots import PretrainConfig
from magicbert.config.sections import ModelSection
from magicbert.data.manifest import read_manifest
from magicbert.records import read_record
from magicbert.search.strategies import STRATEGIES
from magicbert.space import SearchSpace
from magicbert.stages import prepare

pytestmark = pytest.mark.distributed


def test_two_ranks_decide_alike_and_share_the_work(tmp_path):
    stopped = tmp_path / "two" / "stopped"
    first, second = run_ranks("search_worker:every_strategy", 2, tmp_path / "two")
    assert {file.name for file in stopped.iterdir()} == {"scores.jsonl", "scores-1.jsonl"}
    (alone,) = run_ranks("search_worker:alone", 1, tmp_path / "one", str(stopped))
    for strategy in sorted(STRATEGIES):
        one, other, whole = (at["whole"][strategy] for at in (first, second, alone))
        shares = one.pop("num_scores"), other.pop("num_scores")
        num_scores = whole["num_scores"]
        found = {name: value for name, value in whole.items() if name != "num_scores"}
        assert one == other == found, strategy
        assert sum(shares) == num_scores
        assert min(shares) > 0.2 * num_scores
        assert [file.name for file in (tmp_path / "two" / strategy).iterdir()] == ["scores.jsonl"]
    whole, resumed = alone["whole"]["evolution"], alone["resumed"]
    assert first["stopped"]["stopped"]
    assert second["stopped"]["stopped"]
    known = first["stopped"]["num_scores"] + second["stopped"]["num_scores"]
    assert resumed.pop("num_scores") + known == whole.pop("num_scores")
    assert resumed == whole
    assert not (stopped / "scores-1.jsonl").exists()


@pytest.mark.slow
def test_the_command_line_starts_ranks_that_find_what_one_finds(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt", make_documents(120))
    prepare.run(config_for(tmp_path, corpus))
    manifest = read_manifest(tmp_path / "tiny" / "prepare")
    space = SearchSpace.uniform(3, ("mha2", "ffn", "conv3"))
    model = ModelSection(hidden_size=8, max_length=32, dropout=0.0, attention_dropout=0.0)
    supernet = build_supernet(space, model, manifest.vocab_size, manifest.pad_id, seed=3)
    pretrain = tmp_path / "tiny" / "pretrain"
    save_supernet(pretrain / "supernet", supernet, {"data_digest": manifest.digest})
    (pretrain / "config.yaml").write_text(to_yaml(PretrainConfig(model=model)))
    records = {}
    for num_ranks in ("1", "2"):
        options = {
            "run.root": str(tmp_path), "run.name": "tiny", "run.label": f"on-{num_ranks}",
            "launch.num_ranks": num_ranks, "launch.threads_per_rank": "1",
            "search.strategy": "evolution", "search.num_rounds": "2",
            "search.samples_per_round": "8", "search.num_finalists": "6",
            "search.num_dev_batches": "1", "search.num_final_batches": "2",
            "search.rows_per_batch": "8", "search.num_results": "3",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        done = subprocess.run(
            [sys.executable, "-m", "magicbert", "search", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=540,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        folder = Path(tmp_path / "tiny" / f"search-on-{num_ranks}")
        records[num_ranks] = read_record(folder / "architectures.json", "magicbert/architectures/1")
        assert not list(folder.glob("scores-*.jsonl"))
    assert records["1"] == records["2"]
