"""A run tree with records as the stages write them, invented for tests of the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_study import alone_rows, supernet_row

from magicbert.config.reading import to_yaml
from magicbert.config.roots import AnalyzeConfig, PretrainConfig, RetrainConfig
from magicbert.config.sections import AlignmentSection, SamplingSection
from magicbert.ranking.study_result import study_result
from magicbert.records import write_record
from magicbert.trail import describe_environment

OPERATORS = ("mha4", "ffn", "conv3", "conv5")
SIZES = {"mha4": 66_000, "ffn": 132_000, "conv3": 34_000, "conv5": 36_000}


def write_run(
    folder: Path, *, num_layers: int = 12, tasks: tuple[str, ...] = ("embedded",)
) -> Path:
    """Writes every stage of a run; returns its folder."""
    write_prepare(folder)
    write_pretrain(folder)
    write_analyses(folder)
    write_search(folder, num_layers=num_layers)
    write_retrain(folder, "", 5.1, num_layers)
    write_finetune(folder, "", tasks, 0.78)
    (folder / "export").mkdir()
    return folder


def write_trail(folder: Path, config: Any, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "environment.json").write_text(json.dumps(describe_environment()))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_prepare(folder: Path) -> None:
    payload = {
        "vocab_size": 4096, "length": 64, "layout": "full",
        "num_rows": {"train": 7000, "valid": 300}, "num_tokens": {"train": 434000, "valid": 18600},
        "num_documents": {"train": 5100, "valid": 260},
        "skipped": [{"source": "b.txt", "reason": "not UTF-8", "count": 2, "first": "byte 17"}],
    }  # fmt: skip
    write_record(folder / "prepare" / "manifest.json", "magicbert/prepare/1", payload)


def losses(num_steps: int, start: float, end: float, noise: float, seed: int) -> list[float]:
    generator = np.random.default_rng(seed)
    return [
        end + (start - end) * math.exp(-4 * step / num_steps) + noise * generator.normal()
        for step in range(num_steps)
    ]


def write_pretrain(folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    for step, loss in enumerate(losses(60, 8.3, 5.6, 0.15, seed=1)):
        rows.append({"kind": "train", "step": 5 * step, "loss": loss, "alignment": 0.4 + loss / 20})
    for step in range(50, 301, 50):
        rows.append({"kind": "valid", "step": step, "loss": 5.5 + 3 * math.exp(-step / 80),
                     "accuracy": 0.1})  # fmt: skip
    for index, step in enumerate(range(25, 301, 25)):
        level, gain = 0.05 + 0.005 * index, 0.002 if index % 3 == 2 else -0.004
        rows.append({"kind": "anchor", "step": step, "anchor": "mha4-ffn", "challenger": "ffn-mha4",
                     "score": level, "challenger_score": level + gain,
                     "replaced": gain > 0})  # fmt: skip
    config = PretrainConfig(
        sampling=SamplingSection(method="magic-t"), alignment=AlignmentSection(enabled=True)
    )
    write_trail(folder / "pretrain", config, rows)
    result = {
        "steps": 300, "tokens": 614400, "valid_loss": 5.534, "valid_accuracy": 0.123,
        "unigram_entropy": 6.41, "seconds": 73.5, "architecture": None, "parameters": 0,
        "flops": 0.0, "anchor": "mha4-ffn", "finished": True,
    }  # fmt: skip
    write_record(folder / "pretrain" / "result.json", "magicbert/training-result/1", result)


def write_search(folder: Path, *, num_layers: int) -> None:
    generator = np.random.default_rng(0)
    scored = []
    for index in range(240):
        path = [str(name) for name in generator.choice(OPERATORS, num_layers)]
        parameters = 540_000 + sum(SIZES[name] for name in path)
        loss = 5.9 - parameters / 6e6 + 0.05 * generator.normal()
        scored.append({"architecture": "-".join(path), "loss": float(loss), "accuracy": 0.1,
                       "parameters": parameters, "flops": 60.0 * parameters,
                       "round": 1 + index // 60})  # fmt: skip
    limit = 550_000 + 75_000 * num_layers
    fitting = sorted((row for row in scored if row["parameters"] <= limit), key=lambda r: r["loss"])
    layers = [list(OPERATORS)] * num_layers
    figures = [{k: v for k, v in row.items() if k != "round"} for row in fitting]
    result = {
        "results": figures[:10],
        "random": figures[100:104],
        "pareto": {"objectives": ["loss", "parameters", "flops"], "front": figures[:3]},
        "latency": {
            "error_quantiles": {"0.5": 0.021, "0.9": 0.04, "1": 0.07},
            "error_bound": 0.052,
            "num_checks": 8,
        },
        "scored": scored,
        "limits": {"max_parameters": limit, "min_parameters": 0, "max_flops": 0.0},
        "rounds": [{"round": 1, "num_scored": 60, "space": layers, "dropped": [[2, "ffn"]]}],
        "supernet_digest": "0" * 64,
    }
    file = folder / "search" / "architectures.json"
    write_record(file, "magicbert/architectures/1", result)


def write_analyses(folder: Path) -> None:
    figure = {"value": 0.7, "low": 0.6, "high": 0.8, "num_units": 16}
    cosines = [[1.0 if i == j else 0.8 - 0.1 * abs(i - j) for j in range(4)] for i in range(4)]
    pairs = {"same": figure, "other": figure, "all": figure}
    operators = [
        {
            "operator": name,
            "matrix": {"gradient": cosines},
            "pairs": dict.fromkeys(("gradient", "input", "output"), pairs),
            "curve": {"gradient": [{"num_layers": m, **figure} for m in range(1, 12)]},
        }
        for name in OPERATORS
    ]
    setting = {"shared_layer": 1, "differing_layer": 2, "num_contexts": 16}
    write_analysis(folder, "interference", {
        "setting": setting, "candidates": list(OPERATORS), "operators": operators,
    })  # fmt: skip
    walk = {
        "name": "run demo", "layers": 12, "candidates": [4], "num_changes": 1, "is_lazy": False,
        "times": [21, None], "total_variation": [1.0, 0.9, 0.5], "mean_distance": [0.0, 1.0, 1.9],
        "bounds": {"bound": [9.0, 8.0, 7.0]},
        "simulated": {"num_walkers": 9, "steps": [1, 2], "mean_distance": [1.0, 2.0],
                      "standard_error": [0.0, 0.1]},
    }  # fmt: skip
    write_analysis(folder, "sampler", {"distances": [0.25, 0.001], "walks": [walk]})


def write_ranking(folder: Path) -> None:
    """Writes the analysis of ranking, the result of a small study."""
    supernets = [supernet_row(name, seed, 1.0) for name in ("spos", "magic-t") for seed in (0, 1)]
    write_analysis(folder, "ranking", study_result([*alone_rows(), *supernets]))


def write_analysis(folder: Path, target: str, payload: dict[str, Any]) -> None:
    place = folder / f"analyze-{target}"
    write_trail(place, AnalyzeConfig(target=target), [])  # type: ignore[arg-type]
    write_record(place / "result.json", "magicbert/analysis/2", {"target": target, **payload})


def write_retrain(folder: Path, label: str, end: float, num_layers: int) -> None:
    name = f"retrain-{label}" if label else "retrain"
    rows: list[dict[str, Any]] = [
        {"kind": "train", "step": 5 * step, "loss": loss}
        for step, loss in enumerate(losses(60, 8.3, end, 0.08, seed=2))
    ]
    rows += [
        {"kind": "valid", "step": step, "loss": end + 3.1 * math.exp(-step / 80), "accuracy": 0.1}
        for step in range(50, 301, 50)
    ]
    write_trail(folder / name, RetrainConfig(), rows)
    result = {
        "steps": 300, "tokens": 614400, "valid_loss": end + 0.07, "valid_accuracy": 0.171,
        "unigram_entropy": 6.41, "seconds": 41.0, "architecture": "-".join(["mha4"] * num_layers),
        "parameters": 1_420_000, "flops": 8e7, "anchor": None, "finished": True,
    }  # fmt: skip
    write_record(folder / name / "result.json", "magicbert/training-result/1", result)


def write_finetune(folder: Path, label: str, tasks: tuple[str, ...], level: float) -> None:
    name = f"finetune-{label}" if label else "finetune"
    summary = [
        {"task": task, "metric": "accuracy", "learning_rate": 2e-5, "median": level + 0.02 * i,
         "minimum": level + 0.02 * i - 0.015, "maximum": level + 0.02 * i + 0.01, "num_seeds": 3}
        for i, task in enumerate(tasks)
    ]  # fmt: skip
    payload = {"model": "export", "architecture": None, "rows": [], "summary": summary}
    write_record(folder / name / "results.json", "magicbert/finetune/1", payload)
