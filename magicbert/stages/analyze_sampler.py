"""How fast MAGIC-T forgets where it was: exact law, bounds, and the real sampler beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from magicbert.bert.spaces import PRESETS, resolve_space
from magicbert.config.roots import AnalyzeConfig
from magicbert.config.sections import SamplerAnalysisSection
from magicbert.report.analysis_plots import walk_plot
from magicbert.space import SearchSpace
from magicbert.stages.trained_supernet import read_pretrain_config
from magicbert.supernet.mixing import HammingWalk
from magicbert.supernet.mixing_bounds import another_operator_bound, coupling_bound, printed_bound
from magicbert.supernet.walkers import mean_distances, walked_distances
from magicbert.trail import own_or_plain_folder

DISTANCES = (0.25, 0.1, 0.05, 0.01, 0.001)
NUM_SIMULATED = 12
NEVER = "never"


def analyse(config: AnalyzeConfig) -> dict[str, Any]:
    """Returns exact curves, bounds and simulated walks of the shipped spaces and of the run's."""
    return {
        "distances": list(DISTANCES),
        "walks": [examine(name, space, k, config.sampler) for name, space, k in walks_of(config)],
    }


def is_known(config: AnalyzeConfig, former: Mapping[str, Any] | None) -> bool:
    """Never: seconds of arithmetic are not worth looking for what they depended on."""
    return False


def walks_of(config: AnalyzeConfig) -> Iterator[tuple[str, SearchSpace, int]]:
    """Yields name, space and k: of the run's MAGIC-T pretraining if it has one, and the presets."""
    folder = own_or_plain_folder(config.run, "pretrain")
    if (folder / "config.yaml").is_file():
        former = read_pretrain_config(folder)
        space = resolve_space(former.space, former.model.hidden_size)
        if space.count() > 1:
            yield f"run {config.run.name}", space, former.sampling.num_changes
    for name, preset in PRESETS.items():
        yield name, SearchSpace.uniform(preset.num_layers, preset.candidates_at(768)), 1


def examine(
    name: str, space: SearchSpace, num_changes: int, setting: SamplerAnalysisSection
) -> dict[str, Any]:
    """Returns everything about one walk as JSON data."""
    walk = HammingWalk.of(space, num_changes)
    steps = np.arange(setting.num_steps + 1)
    simulated = np.unique(np.linspace(1, setting.num_steps, NUM_SIMULATED).astype(int))
    walked = walked_distances(
        space, num_changes, simulated.tolist(), setting.num_walkers, setting.seed
    )
    exact = mean_distances(walk, setting.num_steps)
    error = walked.std(axis=0, ddof=1) / np.sqrt(len(walked))
    return {
        "name": name,
        "layers": walk.num_layers,
        "candidates": [part.num_candidates for part in walk.classes],
        "num_changes": num_changes,
        "is_lazy": walk.is_lazy,
        "times": [walk.mixing_time(distance) for distance in DISTANCES],
        "total_variation": walk.total_variation(setting.num_steps).tolist(),
        "bounds": {title: curve.tolist() for title, curve in bounds_of(walk, steps).items()},
        "mean_distance": exact.tolist(),
        "simulated": {
            "num_walkers": setting.num_walkers,
            "steps": simulated.tolist(),
            "mean_distance": walked.mean(axis=0).tolist(),
            "standard_error": error.tolist(),
        },
    }


def bounds_of(walk: HammingWalk, steps: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Returns the closed bounds that apply to the walk; they are for k = 1 and equal layers."""
    if walk.num_changes != 1 or len(walk.classes) != 1:
        return {}
    (part,) = walk.classes
    proven = (
        coupling_bound(part.num_layers, steps)
        if walk.is_lazy
        else another_operator_bound(part.num_layers, part.num_candidates, steps)
    )
    return {"bound": proven, "bound as printed": printed_bound(part.num_layers, steps)}


def tables(
    result: Mapping[str, Any],
) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Yields title, head and rows of what is printed."""
    head = ("space", "layers", "candidates", "k", "walk",
            *(f"t to {distance:g}" for distance in result["distances"]),
            "largest gap to theory, in standard errors")  # fmt: skip
    rows = [
        (walk["name"], str(walk["layers"]), ", ".join(map(str, walk["candidates"])),
         str(walk["num_changes"]), "lazy" if walk["is_lazy"] else "another operator",
         *(NEVER if time is None else str(time) for time in walk["times"]),
         f"{largest_gap(walk):.1f}")
        for walk in result["walks"]
    ]  # fmt: skip
    yield "Steps until the law of a path is that close to uniform (total variation)", head, rows


def largest_gap(walk: Mapping[str, Any]) -> float:
    """Returns how far simulation and theory are apart at most, in standard errors."""
    simulated = walk["simulated"]
    exact = np.array(walk["mean_distance"])[simulated["steps"]]
    errors = np.maximum(simulated["standard_error"], 1e-9)
    moving = np.array(simulated["standard_error"]) > 0
    gaps = np.abs(np.array(simulated["mean_distance"]) - exact) / errors
    return float(gaps[moving].max()) if moving.any() else 0.0


def pictures(result: Mapping[str, Any]) -> dict[str, str]:
    """Returns one drawing per walk."""
    return {walk["name"].replace(" ", "-"): walk_plot(walk) for walk in result["walks"]}
