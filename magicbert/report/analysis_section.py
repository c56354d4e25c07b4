"""The section on the analyses: how fast the sampler mixes, how much paths interfere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from magicbert.report.analysis_plots import cosine_heat_maps, several_layers_plot, walk_plot
from magicbert.report.ranking_section import ranking_part
from magicbert.report.reading import RunRecords
from magicbert.report.section import CsvTable, Section, figure, paragraph
from magicbert.report.tables import table

Part = tuple[list[str], list[CsvTable]]


def analysis_section(run: RunRecords, sampler: Mapping[str, Any] | None = None) -> Section:
    """Every analysis of the run: pictures with what they mean, and their numbers.

    Args:
        run: its records.
        sampler: an analysis of the walk that no stage has written.
    """
    parts: list[str] = []
    csv_tables: list[CsvTable] = []
    results = [record.result or {} for record in run.finished("analyze")]
    for result in (*results, *([sampler] if sampler else [])):
        shown, numbers = DRAWN[result["target"]](result)
        parts += shown
        csv_tables += numbers
    return Section("analysis", "Can the supernet be trusted?", tuple(parts), tuple(csv_tables))


def interference_part(result: Mapping[str, Any]) -> Part:
    """Heat maps, the curve over m, and their numbers."""
    setting = result["setting"]
    shared, differing = setting["shared_layer"], setting["differing_layer"]
    parts = [
        figure(
            cosine_heat_maps(result),
            f"Cosine of the gradients that children send into a shared operator of layer {shared}; "
            f"the children differ in layer {differing} alone, by the operators named. Mean of "
            f"{setting['num_contexts']} random contexts.",
        ),
        figure(
            several_layers_plot(result),
            "The same when every two children differ in m layers. Bands are 95% intervals over "
            "contexts: the lower the curve, the more paths disturb each other.",
        ),
        similarity_table(result),
        paragraph(
            "Where children differ in front of the shared operator, its inputs differ too; "
            "behind it, inputs and outputs are the same and gradients alone disagree."
        ),
    ]
    return parts, [matrix_numbers(result), curve_numbers(result)]


def similarity_table(result: Mapping[str, Any]) -> str:
    """Returns the table of mean cosines: gradients by type of pair, inputs and outputs."""
    head = ("shared operator", "gradient, same type", "gradient, other type", "input", "output")
    rows = []
    for row in result["operators"]:
        pairs = row["pairs"]
        figures = (pairs["gradient"]["same"], pairs["gradient"]["other"], pairs["input"]["all"],
                   pairs["output"]["all"])  # fmt: skip
        rows.append([row["operator"], *(None if f is None else f["value"] for f in figures)])
    return table(head, rows)


def matrix_numbers(result: Mapping[str, Any]) -> CsvTable:
    """Returns every cell of every matrix."""
    names = result["candidates"]
    rows = tuple(
        (row["operator"], measure, a, b, row["matrix"][measure][i][j])
        for row in result["operators"]
        for measure in row["matrix"]
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    )
    return CsvTable(
        "interference_matrices", ("shared", "measure", "child", "other_child", "cosine"), rows
    )


def curve_numbers(result: Mapping[str, Any]) -> CsvTable:
    """Returns every point of every curve."""
    rows = tuple(
        (row["operator"], measure, p["num_layers"], p["value"], p["low"], p["high"])
        for row in result["operators"]
        for measure, points in row["curve"].items()
        for p in points
    )
    head = ("shared", "measure", "num_layers", "cosine", "low", "high")
    return CsvTable("interference_curves", head, rows)


def sampler_part(result: Mapping[str, Any]) -> Part:
    """One plot per walk, and the mixing times."""
    parts, rows = [], []
    for walk in result["walks"]:
        size = " and ".join(map(str, walk["candidates"]))
        caption = (
            f"{walk['name']}: {walk['layers']} layers of {size} operators, k = "
            f"{walk['num_changes']}. Left: distance of the path's law to uniform, exact and "
            "bounded; the bound that is printed with the method lies below the truth. Right: how "
            "far walkers of the real sampler have gone."
        )
        parts.append(figure(walk_plot(walk), caption))
        rows += [
            (walk["name"], step, value, walk["mean_distance"][step])
            for step, value in enumerate(walk["total_variation"])
        ]
    head = ("space", *(f"t to {distance:g}" for distance in result["distances"]))
    parts.append(table(head, [[walk["name"], *walk["times"]] for walk in result["walks"]]))
    names = ("space", "step", "total_variation", "mean_distance")
    return parts, [CsvTable("sampler_walks", names, tuple(rows))]


DRAWN: dict[str, Callable[[Mapping[str, Any]], Part]] = {
    "interference": interference_part,
    "sampler": sampler_part,
    "ranking": ranking_part,
}
