"""Examined supernets of a run: what each was, what it lost, and its cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from magicbert.errors import UserError
from magicbert.report.reading import RunRecords, StageRecord

PREFIX = "interference-"
METHODS = ("SPOS", "MAGIC-T", "MAGIC-A", "MAGIC-AT", "aligned to children")


@dataclass(frozen=True)
class Cosines:
    """What was found at one shared operator.

    Attributes:
        operator: its name.
        curve: gradient cosine over m = 1, 2, ... differing layers.
        pairs: per measure (gradient, input, output), one number per pair of children that differ
            in one layer.
        same: gradient cosine of pairs of one type; ``None`` where there are none.
        other: of pairs of different types.
    """

    operator: str
    curve: tuple[float, ...]
    pairs: Mapping[str, tuple[float, ...]]
    same: float | None
    other: float | None

    @property
    def mean(self) -> float:
        """Mean over the curve: one figure for the interference at this operator."""
        return float(np.mean(self.curve))

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Cosines:
        """Reads one operator of an analysis."""
        upper = np.triu_indices(len(row["matrix"]["gradient"]), k=1)
        pairs = {
            name: tuple(np.array(matrix)[upper].tolist()) for name, matrix in row["matrix"].items()
        }
        curve = tuple(point["value"] for point in row["curve"]["gradient"])
        summary = row["pairs"]["gradient"]
        return cls(
            row["operator"], curve, pairs, *(value_of(summary[n]) for n in ("same", "other"))
        )


@dataclass(frozen=True)
class Examined:
    """One supernet and its analysis.

    Attributes:
        label: of the run's stages.
        method: how it was trained.
        num_layers: N.
        num_candidates: C.
        num_steps: of its training.
        seed: of its training.
        loss: valid loss, nats, mean over the paths that its training evaluates.
        shared_layer: whose operators were examined, from 1.
        cosines: of each.
        commit: of the code that examined it.
    """

    label: str
    method: str
    num_layers: int
    num_candidates: int
    num_steps: int
    seed: int
    loss: float
    shared_layer: int
    cosines: tuple[Cosines, ...]
    commit: str

    @property
    def size(self) -> tuple[int, int, int]:
        """Layers, candidates and steps: what supernets must share to be compared as methods."""
        return self.num_layers, self.num_candidates, self.num_steps

    @property
    def changes(self) -> float:
        """Operators that change from one uniform path to the next, ``N (C - 1) / C``."""
        return self.num_layers * (self.num_candidates - 1) / self.num_candidates

    def at(self, operator: str) -> Cosines:
        """Returns what was found at an operator."""
        return next(found for found in self.cosines if found.operator == operator)


def examined(run: RunRecords) -> list[Examined]:
    """Returns every supernet of a run whose interference was examined."""
    trained = {record.label: record for record in run.finished("pretrain")}
    found = (r for r in run.finished("analyze") if (r.result or {})["target"] == "interference")
    return [
        read_one(trained[label], record)
        for record in found
        if (label := record.label.removeprefix("interference").removeprefix("-")) in trained
    ]


def read_one(trained: StageRecord, analysis: StageRecord) -> Examined:
    """Puts a training and its analysis together.

    Raises:
        UserError: its layers do not all have the same candidates, named in the configuration.
    """
    config, result = trained.config, analysis.result or {}
    (*_, loss) = trained.series("valid", "loss")[1]
    space = config["space"]
    if not space["num_layers"] or not space["candidates"]:
        raise UserError(
            f"{trained.folder_name}: this page compares supernets whose configuration names "
            "space.num_layers and space.candidates"
        )
    return Examined(
        trained.label,
        method_of(config),
        space["num_layers"],
        len(space["candidates"]),
        config["training"]["num_steps"],
        config["training"]["seed"],
        loss,
        result["setting"]["shared_layer"],
        tuple(Cosines.of(row) for row in result["operators"]),
        str(analysis.environment.get("commit")),
    )


def method_of(config: Mapping[str, Any]) -> str:
    """Returns the name of a training's method."""
    gradual, alignment = config["sampling"]["method"] == "magic-t", config["alignment"]
    if not alignment["enabled"]:
        return METHODS[1] if gradual else METHODS[0]
    if alignment["anchor"] == "children":
        return METHODS[4]
    return METHODS[3] if gradual else METHODS[2]


def value_of(summary: Mapping[str, Any] | None) -> float | None:
    """Returns the figure of a summary; ``None`` where no pair is of its kind."""
    return None if summary is None else float(summary["value"])


def main_size(supernets: Sequence[Examined]) -> tuple[int, int, int]:
    """Returns the size at which most methods were examined."""
    methods: dict[tuple[int, int, int], set[str]] = {}
    for one in supernets:
        methods.setdefault(one.size, set()).add(one.method)
    return max(methods, key=lambda size: (len(methods[size]), size))
