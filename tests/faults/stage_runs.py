"""Tiny runs of the stages, in which a process can be killed and the command given again."""

from __future__ import annotations

import atexit
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from forked_ranks import RankServer, Trial, num_firings
from tiny_bert import save_tiny_bert
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert.bert.saving import save_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.config.reading import to_yaml
from magicbert.config.roots import PretrainConfig
from magicbert.config.sections import ModelSection
from magicbert.data.manifest import read_manifest
from magicbert.records import file_digest, read_record
from magicbert.space import SearchSpace
from magicbert.stages import prepare
from magicbert.trail import read_metrics

SPACE = SearchSpace.uniform(3, ("mha2", "ffn", "conv3"))
MODEL = ModelSection(hidden_size=8, max_length=32, dropout=0.0, attention_dropout=0.0)
WORDS = ("good", "bad", "the", "film", "was")
CLOCKS = ("time", "seconds", "tokens_per_second", "step_seconds")
KILLED = -9
OPTIONS: dict[str, dict[str, str]] = {
    "prepare": {
        "corpus.valid_fraction": "0.1", "tokenizer.vocab_size": "200", "shards.length": "32",
        "shards.rows_per_shard": "50", "shards.num_workers": "1",
    },
    "search": {
        "search.num_rounds": "2", "search.samples_per_round": "8", "search.num_finalists": "6",
        "search.num_dev_batches": "1", "search.num_final_batches": "2",
        "search.rows_per_batch": "8", "search.num_results": "3", "search.drop_fraction": "0.4",
    },
    "retrain": {
        "architecture": "mha2-ffn-conv3", "start": "inherited", "model.hidden_size": "8",
        "model.max_length": "32", "model.dropout": "0.1", "optimizer.warmup_steps": "0",
        "training.num_steps": "12", "training.rows_per_step": "8",
        "training.rows_per_micro_batch": "4", "training.precision": "fp32",
        "training.log_every": "1", "training.evaluate_every": "4",
        "training.num_eval_batches": "1", "training.checkpoint_every": "2",
    },
    "finetune": {
        "finetune.learning_rates": "[0.01, 0.02]", "finetune.seeds": "[0, 1]",
        "finetune.num_epochs": "1", "finetune.batch_size": "16", "finetune.max_length": "16",
        "finetune.tasks": "[sst2]",
    },
    "export": {},
}  # fmt: skip


class StageRun:
    """A run of one stage: what it needs is there, and it can be started again and again.

    Args:
        base: folder of `write_base`.
        root: root of the runs; a copy of the base's.
        verb: the stage.
        mutant: defence taken out, as `stage_worker` names it.
    """

    def __init__(self, base: Path, root: Path, verb: str, mutant: str = "") -> None:
        self.base, self.root, self.verb, self.mutant = base, root, verb, mutant
        self.run = root / "tiny"
        shutil.copytree(base / "runs", root)
        if verb == "prepare":
            shutil.rmtree(self.run / "prepare")
        self.num_starts = 0

    def start(self, faults: str = "") -> Trial:
        """Gives the command."""
        options = {"run.root": str(self.root), "run.name": "tiny", **OPTIONS[self.verb]}
        if self.verb == "prepare":
            options["corpus.sources"] = f"[{self.base / 'corpus.txt'}]"
        if self.verb == "finetune":
            options |= {"finetune.model": str(self.base / "bert"), "finetune.data": str(self.base)}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.num_starts += 1
        folder = self.root.parent / f"{self.root.name}-start-{self.num_starts}"
        work = "stage_worker:run_stage"
        arguments = {"words": [self.verb, *words], "mutant": self.mutant}
        return stage_server().start(work, 1, folder, arguments, faults=faults)

    def finish(self) -> dict[str, Any]:
        """Runs the stage to its end; returns its result."""
        self.start().results()
        return RESULTS[self.verb](self.run)

    def kill_at(self, point: str, hit: int) -> bool:
        """Runs the stage and kills it at a fault point; ``False`` = it ended before."""
        trial = self.start(f"{point}=kill@hit:{hit}")
        codes = trial.wait(120)
        if num_firings(trial.folder) == 0:
            assert codes == [0], trial.log()
            return False
        assert codes == [KILLED], trial.log()
        return True


@cache
def stage_server() -> RankServer:
    """Returns the one server of this process that has the stages imported."""
    server = RankServer("stage_worker")
    atexit.register(server.close)
    return server


def write_base(base: Path) -> Path:
    """Writes a corpus, prepared data, a supernet of random weights, a small BERT, a task."""
    base.mkdir(parents=True)
    corpus = write_corpus(base / "corpus.txt", make_documents(120))
    prepare.run(config_for(base / "runs", corpus))
    manifest = read_manifest(base / "runs" / "tiny" / "prepare")
    supernet = build_supernet(SPACE, MODEL, manifest.vocab_size, manifest.pad_id, seed=3)
    pretrain = base / "runs" / "tiny" / "pretrain"
    save_supernet(pretrain / "supernet", supernet, {"data_digest": manifest.digest})
    (pretrain / "config.yaml").write_text(to_yaml(PretrainConfig(model=MODEL)))
    save_tiny_bert(base / "bert", WORDS)
    (base / "SST-2").mkdir()
    for name, count in (("train", 48), ("dev", 16)):
        rows = [f"the film was {('bad', 'good')[n % 2]}\t{n % 2}" for n in range(count)]
        (base / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return base


def files_of(folder: Path) -> dict[str, str]:
    """Returns the digests of all files of a tree."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def without_clocks(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row without times and speeds."""
    return {name: value for name, value in row.items() if name not in CLOCKS}


def steps_of(folder: Path) -> dict[str, Any]:
    """Returns what was logged, by kind and step; rows written twice must say the same."""
    found: dict[str, Any] = {}
    for row in map(without_clocks, read_metrics(folder)):
        name = f"{row['kind']} {row['step']}"
        if json.dumps(found.setdefault(name, row)) != json.dumps(row):
            found[name] = f"two versions: {found[name]}, {row}"
    return found


def prepared(run: Path) -> dict[str, Any]:
    """Returns the bytes of tokenizer, rows and manifest; ``work/`` must be gone."""
    trail = ("config.yaml", "environment.json", "metrics.jsonl", "log.txt")
    return {name: v for name, v in files_of(run / "prepare").items() if name not in trail}


def searched(run: Path) -> dict[str, Any]:
    """Returns the record of the search, and every score."""
    lines = (run / "search" / "scores.jsonl").read_text().splitlines()
    record = read_record(run / "search" / "architectures.json", "magicbert/architectures/1")
    return {"record": record, "scores": lines}


def retrained(run: Path) -> dict[str, Any]:
    """Returns result, log and weights."""
    folder = run / "retrain"
    result = read_record(folder / "result.json", "magicbert/training-result/1")
    weights = file_digest(folder / "model" / "model.safetensors")
    return {"result": without_clocks(result), "steps": steps_of(folder), "weights": weights}


def finetuned(run: Path) -> dict[str, Any]:
    """Returns every row and the predictions."""
    record = read_record(run / "finetune" / "results.json", "magicbert/finetune/1")
    record["rows"] = [without_clocks(row) for row in record["rows"]]
    return {"record": record, "predictions": files_of(run / "finetune" / "predictions")}


RESULTS = {
    "prepare": prepared, "search": searched, "retrain": retrained, "finetune": finetuned,
}  # fmt: skip
