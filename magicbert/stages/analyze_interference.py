"""Interference in a trained supernet: Figure 2 of MAGIC on the user's own space and text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from magicbert.bootstrap import estimate
from magicbert.config.reading import to_tree
from magicbert.config.roots import AnalyzeConfig
from magicbert.config.sections import InterferenceSection
from magicbert.errors import UserError
from magicbert.interference.measuring import (
    MEASURES,
    Examination,
    device_batches,
    one_layer_matrices,
    several_layers_curve,
)
from magicbert.interference.summaries import pair_summary
from magicbert.report.analysis_plots import cosine_heat_maps, several_layers_plot
from magicbert.space import SearchSpace
from magicbert.stages.trained_supernet import open_trained


def analyse(config: AnalyzeConfig) -> dict[str, Any]:
    """Returns matrices, summaries and curves of every shared operator that is asked for."""
    setting = config.interference
    trained = open_trained(config.run, rows_per_batch=setting.rows_per_batch, seed=setting.seed)
    supernet = trained.supernet
    check_layers(supernet.space, setting)
    supernet.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    examination = Examination(
        supernet,
        trained.objective,
        device_batches(supernet, trained.source.dev_batches(setting.num_batches)),
        setting.shared_layer - 1,
        setting.num_contexts,
        setting.seed,
    )
    operators = setting.operators or supernet.space.layers[setting.shared_layer - 1]
    return {
        "origin": trained.origin,
        "setting": to_tree(setting),
        "candidates": list(supernet.space.layers[setting.differing_layer - 1]),
        "operators": [examine(examination, name, setting) for name in operators],
    }


def is_known(config: AnalyzeConfig, former: Mapping[str, Any] | None) -> bool:
    """Returns whether a result of the same setting, weights and data stands already."""
    if former is None or former["setting"] != to_tree(config.interference):
        return False
    rows, seed = config.interference.rows_per_batch, config.interference.seed
    origin = open_trained(config.run, rows_per_batch=rows, seed=seed).origin
    return bool(former["origin"] == origin)


def check_layers(space: SearchSpace, setting: InterferenceSection) -> None:
    """Raises `UserError` unless the layers and operators exist in the supernet."""
    for name in ("shared_layer", "differing_layer"):
        value = getattr(setting, name)
        if value > space.num_layers:
            raise UserError(
                f"interference.{name}: {value} is above the supernet's {space.num_layers} layers"
            )
    there = space.layers[setting.shared_layer - 1]
    unknown = [name for name in setting.operators if name not in there]
    if unknown:
        raise UserError(
            f"interference.operators: layer {setting.shared_layer} has no {', '.join(unknown)}; "
            f"it has {', '.join(there)}"
        )
    if len(space.layers[setting.differing_layer - 1]) < 2:
        raise UserError(
            f"interference.differing_layer: layer {setting.differing_layer} has one candidate; "
            "children cannot differ there"
        )


def examine(
    examination: Examination, operator: str, setting: InterferenceSection
) -> dict[str, Any]:
    """Returns what was found at one shared operator, as JSON data."""
    space = examination.supernet.space
    differing = setting.differing_layer - 1
    matrices = one_layer_matrices(examination, operator, differing)
    most = min(setting.most_layers or space.num_layers - 1, space.num_layers - 1)
    curves = several_layers_curve(examination, operator, most)
    candidates = space.layers[differing]
    return {
        "operator": operator,
        "matrix": {name: np.nanmean(matrices[name], axis=0).tolist() for name in MEASURES},
        "pairs": {name: pair_summary(matrices[name], candidates) for name in MEASURES},
        "curve": {name: curve_of(curves[name]) for name in MEASURES},
    }


def curve_of(samples: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Returns the mean and its interval for m = 1, 2, ... from ``[samples, m]``."""
    return [
        {"num_layers": m, **dataclasses.asdict(estimate(column))}
        for m, column in enumerate(samples.T, start=1)
    ]


def tables(
    result: Mapping[str, Any],
) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Yields title, head and rows of what is printed."""
    setting = result["setting"]
    head = ("shared operator", "gradient, same type", "gradient, other type", "input", "output")
    rows = [
        (row["operator"],
         shown(row["pairs"]["gradient"]["same"]), shown(row["pairs"]["gradient"]["other"]),
         shown(row["pairs"]["input"]["all"]), shown(row["pairs"]["output"]["all"]))
        for row in result["operators"]
    ]  # fmt: skip
    yield (
        f"Cosine at layer {setting['shared_layer']} of children that differ in layer "
        f"{setting['differing_layer']}",
        head,
        rows,
    )
    curves = {row["operator"]: row["curve"]["gradient"] for row in result["operators"]}
    lengths = range(len(next(iter(curves.values()))))
    yield (
        "Gradient cosine of children that differ in m layers",
        ("m", *curves),
        [(str(m + 1), *(shown(curve[m]) for curve in curves.values())) for m in lengths],
    )


def shown(figure: Mapping[str, Any] | None) -> str:
    """Returns a figure with its interval, or a dash where there were no such pairs."""
    if figure is None:
        return "-"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def pictures(result: Mapping[str, Any]) -> dict[str, str]:
    """Returns the heat maps and the curves."""
    return {
        "matrices": cosine_heat_maps(result),
        "curves": several_layers_plot(result),
    }
