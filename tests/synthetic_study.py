"""Rows of a study of rank fidelity with a known truth, invented for tests."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

OPERATORS = {"mha2": 66_000, "ffn": 132_000, "conv3": 34_000, "conv5": 36_000}
REPEATS, PERIOD = 3, 3
# Standard deviation of each method's scores around the expected losses, which have one of 1.
METHODS = {"spos": 1.2, "magic-t": 1.2, "magic-a": 0.8, "magic-at": 0.4}
NOISE_ALONE = 0.5
Rows = list[dict[str, Any]]


def patterns() -> list[str]:
    """Returns the architectures: every pattern of the period, repeated."""
    return ["-".join(p * REPEATS) for p in itertools.product(OPERATORS, repeat=PERIOD)]


def expected_losses(seed: int = 0) -> dict[str, float]:
    """Returns an expected loss per architecture, of standard deviation 1: operators and places."""
    generator = np.random.default_rng(seed)
    worth = generator.normal(size=len(OPERATORS))
    places = generator.normal(size=(PERIOD, len(OPERATORS)))
    codes = np.array(list(itertools.product(range(len(OPERATORS)), repeat=PERIOD)))
    raw = worth[codes].sum(axis=1) + sum(places[i, codes[:, i]] for i in range(PERIOD))
    losses = (raw - raw.mean()) / raw.std()
    return dict(zip(patterns(), losses.tolist(), strict=True))


def alone_rows(num_seeds: int = 2, noise: float = NOISE_ALONE, budget: str = "short") -> Rows:
    """Returns every architecture trained alone with each seed."""
    generator = np.random.default_rng(1)
    return [
        {
            "kind": "alone", "architecture": name, "seed": seed, "budget": budget, "steps": 600,
            "loss": 6.0 + 0.1 * (loss + noise * generator.normal()), "accuracy": 0.2,
            "parameters": 540_000 + sum(OPERATORS[part] for part in name.split("-")),
            "flops": 64 * sum(OPERATORS[part] for part in name.split("-")),
            "training_flops": 1e12, "curve": [[300, 6.4], [600, 6.0]], "seconds": 30.0,
        }
        for name, loss in expected_losses().items()
        for seed in range(num_seeds)
    ]  # fmt: skip


def supernet_row(method: str, seed: int, sd: float, settings: str = "default") -> dict[str, Any]:
    """Returns one supernet whose scores lie around the expected losses."""
    generator = np.random.default_rng([seed, len(settings), *method.encode()])
    scores = {
        name: 6.5 + 0.1 * (loss + sd * generator.normal())
        for name, loss in expected_losses().items()
    }
    start = 6.4 + 0.05 * generator.normal()
    is_aligned = method in ("magic-a", "magic-at")
    return {
        "kind": "supernet", "method": method, "settings": settings, "seed": seed, "steps": 4000,
        "flops": 4e13 * (1.34 if is_aligned and settings != "equal-flops" else 1.0),
        "loss": float(np.mean(list(scores.values()))), "scores": scores,
        "curve": [[step, start + 2 * np.exp(-step / 800)] for step in range(500, 4001, 500)],
        "anchors": 12 if is_aligned else 0,
        "interference": {"cosine": 0.5 - 0.2 * sd + 0.01 * generator.normal(), "one_layer": 0.7,
                         "num_pairs": 16},
        "seconds": 900.0,
    }  # fmt: skip


def downstream_rows(task: str = "SST-2", num_architectures: int = 30) -> Rows:
    """Returns scores that follow the expected losses loosely."""
    generator = np.random.default_rng(5)
    some = list(expected_losses().items())[:num_architectures]
    return [
        {"kind": "downstream", "architecture": name, "seed": 0, "task": task, "metric": "accuracy",
         "score": 0.8 - 0.02 * (loss + generator.normal()), "seconds": 9.0}
        for name, loss in some
    ]  # fmt: skip


def study_rows(num_seeds: int = 5) -> Rows:
    """Returns a whole study: table, main comparison, equal FLOPs, ablations, one task."""
    rows: Rows = [*alone_rows(), *alone_rows(1, 0.2, "long")[:40], *downstream_rows()]
    for seed in range(num_seeds):
        rows += [supernet_row(method, seed, sd) for method, sd in METHODS.items()]
        rows += [
            supernet_row(method, seed, METHODS[method] + 0.1, "equal-flops")
            for method in ("magic-a", "magic-at")
        ]
        if seed < 2:
            rows += [supernet_row("magic-t", seed, 1.2 + 0.1 * k, f"k={k}") for k in (2, 6)]
            rows += [supernet_row("magic-a", seed, 0.8 + p / 90, f"p={p}") for p in (10, 50)]
            rows.append(supernet_row("strict-fair", seed, 1.0))
    return rows


def write_study(file: Path, rows: Rows) -> Path:
    """Writes rows as lines of JSON; returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
