"""The latencies of compressed models: every part measured alone, sums checked on whole models."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from magicbert.bert.block_supernet import named_at
from magicbert.bert.chain_latency import parts_of, timed_chain
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.config.roots import CompressConfig
from magicbert.config.sections import LatencySection
from magicbert.records import write_record
from magicbert.search.latency import Check, LatencyTable
from magicbert.search.timing import Timing, measure
from magicbert.space import Architecture
from magicbert.stages.search_latency import (
    FILE,
    SCHEMA,
    covering,
    facts_of,
    read_table,
    report,
    timed_parts,
)

LOGGER = logging.getLogger("magicbert")
# Both ends of a model depend on its widths: they are parts among the others.
NOTHING = Timing(0, 0, 0, 0)
Draw = Callable[[int], list[Architecture]]


def chain_table(
    config: CompressConfig, encoder: MagicBertConfig, length: int, folder: Path, draw: Draw
) -> LatencyTable:
    """Returns the given table, the folder's own, or a new one that is then the folder's own.

    Args:
        config: of the stage.
        encoder: what all models share.
        length: tokens of a prepared row.
        folder: where a table that has to be measured is written.
        draw: returns so many models to check the sums against.

    Raises:
        UserError: a given table is of another machine, or of other settings.
    """
    section, blocks = config.latency, config.blocks
    parts = timed_parts(section, encoder, length)
    facts = facts_of(section, parts)
    names = [
        named_at(name, width, blocks.head_size)
        for width in blocks.widths
        for name in blocks.operators
    ]
    own = Path(section.file) if section.file else folder / FILE
    if own.is_file() or section.file:
        table = read_table(own)
        if section.file or table.facts == facts:
            table.check_facts(facts, str(own))
            ends = timed_chain(parts, blocks.widths, (), ())
            table = covering(table, dict.fromkeys((*names, *ends)), str(own))
            if section.file:  # what a result follows stands beside it
                folder.mkdir(parents=True, exist_ok=True)
                write_record(folder / FILE, SCHEMA, table.to_json())
            return table
        LOGGER.info("compress: the latencies of %s are of something else", own)
    models = draw(section.num_checks)
    LOGGER.info("compress: measuring the latency of %d operators and %d whole models",
                len(names), len(models))  # fmt: skip
    calls = timed_chain(parts, blocks.widths, names, models)
    found = measure(calls, num_threads=facts["num_threads"], seconds=section.seconds)
    table = table_of(facts, found, models)
    folder.mkdir(parents=True, exist_ok=True)
    write_record(own, SCHEMA, table.to_json())
    report(table, own, "compress")
    return table


def table_of(
    facts: Mapping[str, Any], found: Mapping[str, Timing], models: Sequence[Architecture]
) -> LatencyTable:
    """Returns the table of what was measured.

    Args:
        facts: machine, settings and sizes.
        found: of every part, and of every model under ``whole`` and its name.
        models: that were measured whole.
    """
    parts = {name: timing for name, timing in found.items() if not name.startswith("whole ")}
    table = LatencyTable(facts, NOTHING, NOTHING, parts)
    checks = [
        Check(
            model,
            sum(parts[name].median_ns for name in parts_of(model.operators)),
            found[f"whole {model}"].median_ns,
        )
        for model in models
    ]
    return dataclasses.replace(table, checks=tuple(checks))


def whole_latencies(
    section: LatencySection, encoder: MagicBertConfig, length: int, models: Sequence[Architecture]
) -> list[int]:
    """Returns the measured latency of whole models, in nanoseconds."""
    parts = timed_parts(section, encoder, length)
    threads = facts_of(section, parts)["num_threads"]
    calls = timed_chain(parts, (), (), models)
    found = measure(calls, num_threads=threads, seconds=section.seconds)
    return [found[f"whole {model}"].median_ns for model in models]


def shown_latency(result: Mapping[str, Any]) -> str:
    """Returns the latencies of a result as a part of a sentence; empty where there are none."""
    if "measured_ms" not in result:
        return ""
    return f", {result['measured_ms']:.4g} ms ({result['latency_ms']:.4g} ms by its parts)"
