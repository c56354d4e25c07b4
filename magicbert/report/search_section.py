"""The sections on the search: what was found, what was scored, and what the winner costs."""

from __future__ import annotations

from typing import Any

from magicbert.report.front_plot import front_plot
from magicbert.report.palette import natural_order
from magicbert.report.plots import cost_plot, short_count
from magicbert.report.reading import RunRecords, StageRecord, winner
from magicbert.report.section import CsvTable, Section, figure, paragraph
from magicbert.report.stacks import stacks
from magicbert.report.tables import Mark, Value, table
from magicbert.space.architecture import Architecture
from magicbert.space.cost import Cost, CostModel
from magicbert.space.search_space import SearchSpace

MAX_STACKS = 10
FRONT_FIELDS = ("architecture", "loss", "accuracy", "parameters", "flops", "latency_ms")
SCORED_FIELDS = ("round", *FRONT_FIELDS, "num_batches")


def search_section(run: RunRecords) -> Section:
    """Best architectures as stacks, cost against loss, and the rounds of shrinking."""
    parts: list[str] = []
    csv_tables: list[CsvTable] = []
    for record in run.finished("search"):
        result: dict[str, Any] = record.result or {}
        if not result["results"]:
            continue
        parts += _found(record, result)
        rows = tuple(tuple(row.get(name) for name in SCORED_FIELDS) for row in result["scored"])
        csv_tables.append(CsvTable(f"{record.folder_name}_scored", SCORED_FIELDS, rows))
        front = result.get("pareto", {}).get("front", ())
        if front:
            rows = tuple(tuple(row.get(name) for name in FRONT_FIELDS) for row in front)
            csv_tables.append(CsvTable(f"{record.folder_name}_pareto", FRONT_FIELDS, rows))
    if len(parts) and len(run.finished("search")) > 1:
        parts.append(_side_by_side(run))
    return Section("search", "Search", tuple(parts), tuple(csv_tables))


def cost_section(run: RunRecords, costs: CostModel | None) -> Section:
    """Parameters and FLOPs of the winner, split by operator."""
    best = winner(run)
    if best is None or costs is None:
        return Section("cost", "Cost of the winner")
    rows = cost_rows(Architecture.parse(best["architecture"]), costs)
    head = ("part", "layers", "parameters", "share", "FLOPs", "share of FLOPs")
    note = "FLOPs of one forward of one full row; a multiply-add counts as two."
    csv_rows = tuple((row[0], row[1], row[2], row[4]) for row in rows)
    text = [
        [row[0], row[1], row[2], Mark(f"{row[3]:.1%}"), Mark(short_count(row[4])),
         Mark(f"{row[5]:.1%}")]
        for row in rows
    ]  # fmt: skip
    return Section(
        "cost",
        "Cost of the winner",
        (table(head, text), paragraph(note)),
        (CsvTable("cost", ("part", "layers", "parameters", "flops"), csv_rows),),
    )


def cost_rows(
    architecture: Architecture, costs: CostModel
) -> list[tuple[str, int | None, int, float, float, float]]:
    """Returns part, layers, parameters, their share, FLOPs, their share; the total comes last."""
    total = costs.cost(architecture)
    parts: list[tuple[str, int | None, Cost]] = [("embeddings", None, costs.fixed)]
    names = architecture.operators
    split = costs.by_operator(architecture)
    parts += [(name, names.count(name), split[name]) for name in sorted(split, key=natural_order)]
    parts.append(("total", len(names), total))
    return [
        (name, layers, cost.parameters, cost.parameters / max(total.parameters, 1),
         cost.flops, cost.flops / max(total.flops, 1.0))
        for name, layers, cost in parts
    ]  # fmt: skip


def _found(record: StageRecord, result: dict[str, Any]) -> list[str]:
    best = result["results"][0]
    limits = result.get("limits", {})
    bounds = [
        float(limits[name]) for name in ("min_parameters", "max_parameters") if limits.get(name)
    ]
    shown = result["results"][:MAX_STACKS]
    parts = [
        paragraph(_summary(record, result)),
        figure(
            stacks(shown, [str(rank + 1) for rank in range(len(shown))]),
            "Best architectures, first layer at the bottom. Above each: rank, loss with inherited "
            "weights in nats, parameters.",
        ),
        figure(
            cost_plot(result["scored"], best, bounds, result.get("random", ())),
            "Every scored candidate: cost against loss. Crosses: random architectures within the "
            "same limits, scored as the finalists are.",
        ),
    ]
    if result.get("pareto", {}).get("front"):
        names = ", ".join(result["pareto"]["objectives"])
        parts.append(
            figure(
                front_plot(result),
                f"What no other candidate beats in {names}. Front and random architectures are "
                "scored on as many batches as the finalists, others perhaps on fewer.",
            )
        )
    if result.get("latency"):
        parts.append(paragraph(_latency_error(result["latency"])))
    if result.get("rounds"):
        head = ("round", "scored", "architectures left", "dropped operators")
        parts.append(table(head, [_round(row) for row in result["rounds"]]))
    return parts


def _summary(record: StageRecord, result: dict[str, Any]) -> str:
    limits = ", ".join(
        f"{name.replace('_', ' ')} {short_count(value)}"
        for name, value in result.get("limits", {}).items()
        if value
    )
    where = f"{record.folder_name}: " if record.label else ""
    return (
        f"{where}{len(result['scored']):,} candidates scored with inherited weights; "
        f"limits: {limits or 'none'}."
    )


def _latency_error(latency: dict[str, Any]) -> str:
    middle, most = latency["error_quantiles"]["0.5"], latency["error_quantiles"]["1"]
    return (
        f"Latencies are sums of measured parts. Against {latency['num_checks']} whole models of "
        f"random architectures they are off by {middle:.1%} in the median and {most:.1%} at most; "
        f"limits are held with {latency['error_bound']:.1%} added."
    )


def _side_by_side(run: RunRecords) -> str:
    """Returns the table of several searches: what each has spent and what it has found."""
    head = ("search", "strategy", "scored", "best loss", "its parameters", "mean loss of random")
    rows: list[list[Value]] = []
    for record in run.finished("search"):
        result: dict[str, Any] = record.result or {}
        if not result["results"]:
            continue
        losses = [row["loss"] for row in result.get("random", ()) if row.get("loss") is not None]
        strategy = result.get("settings", {}).get("strategy", "shrink-operators")
        num_scored = len({row["architecture"] for row in result["scored"]})
        best = result["results"][0]
        mean = sum(losses) / len(losses) if losses else None
        rows.append(
            [record.folder_name, strategy, num_scored, best["loss"], best["parameters"], mean]
        )
    return table(head, rows)


def _round(row: dict[str, Any]) -> list[Value]:
    left = row.get("num_left", SearchSpace.from_json(row["space"]).count())
    dropped = ", ".join(f"{name} in layer {layer + 1}" for layer, name in row["dropped"])
    return [row["round"], row["num_scored"], Mark(f"{left:,}" if left < 1e9 else f"{left:.2e}"),
            dropped or "–"]  # fmt: skip
