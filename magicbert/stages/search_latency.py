"""The latencies of a search: measured, kept beside it, and put into costs and limits."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from magicbert.bench.machine import describe_machine
from magicbert.bert.latency import TimedParts
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.saving import CONFIG_FIELDS
from magicbert.config.roots import SearchConfig
from magicbert.config.sections import LatencySection
from magicbert.errors import UserError
from magicbert.records import digest_of, read_record, write_record
from magicbert.search.latency import Check, LatencyTable
from magicbert.search.timing import measure
from magicbert.space import Architecture
from magicbert.space.feasible import FeasiblePaths
from magicbert.space.randomness import keyed_generator
from magicbert.stages.search_ranks import decided_by_first
from magicbert.stages.search_subject import Subject
from magicbert.training.ranks import Ranks

LOGGER = logging.getLogger("magicbert")
FILE = "latency.json"
SCHEMA = "magicbert/latency/1"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def is_wanted(config: SearchConfig) -> bool:
    """Returns whether a setting needs latencies."""
    section = config.search
    return bool(
        config.latency.measure
        or config.latency.file
        or section.max_latency_ms
        or "latency" in section.objectives
        or section.bin_by == "size-and-latency"
    )


def with_latency(
    subject: Subject, config: SearchConfig, folder: Path, ranks: Ranks | None = None
) -> Subject:
    """Returns the subject with latencies in its costs, if a setting needs them.

    The limit is put on the prediction so that a model as much slower than predicted as the worst
    of the checks still keeps it.

    Args:
        subject: what is searched.
        config: of the search.
        folder: where a table that has to be measured is written.
        ranks: all ranks, of which the first one measures while the others wait.

    Raises:
        UserError: nothing is known of this subject's latencies, or a given table is of another
            machine or of other settings.
    """
    if not is_wanted(config) or subject.has_latency:
        return subject
    encoder, choices = subject.encoder, subject.choices
    if encoder is None or not isinstance(choices, FeasiblePaths):
        raise UserError(
            f"latencies cannot be measured for search.scorer {config.search.scorer!r}: it names no "
            "encoder; take search.scorer checkpoint, or give your own costs a latency_ns"
        )
    table = decided_by_first(
        ranks, lambda: table_of(config, encoder, choices, subject.length, folder)
    )
    allowed = config.search.max_latency_ms and table.limit_on_prediction(
        config.search.max_latency_ms
    )
    limits = dataclasses.replace(choices.limits, max_latency_ms=allowed)
    timed = FeasiblePaths(choices.space, table.extend(choices.model), limits)
    digest = digest_of(table.to_json())
    return dataclasses.replace(
        subject,
        choices=timed,
        has_latency=True,
        latency_digest=digest,
        latency_error=table.error_record(),
    )


def table_of(
    config: SearchConfig,
    encoder: MagicBertConfig,
    choices: FeasiblePaths,
    length: int,
    folder: Path,
) -> LatencyTable:
    """Returns the given table, the folder's own, or a new one that is then the folder's own."""
    section = config.latency
    parts = timed_parts(section, encoder, length)
    facts = facts_of(section, parts)
    names = dict.fromkeys(name for layer in choices.space.layers for name in layer)
    if section.file:
        table = read_table(Path(section.file))
        table.check_facts(facts, section.file)
        return covering(table, names, section.file)
    own = folder / FILE
    if own.is_file():
        table = read_table(own)
        try:
            table.check_facts(facts, str(own))
            return covering(table, names, str(own))
        except UserError as error:
            LOGGER.info("search: measuring latencies anew. %s", error)
    without = dataclasses.replace(choices.limits, max_latency_ms=0.0)
    untimed = FeasiblePaths(choices.space, choices.model, without)
    untimed.check()
    generator = keyed_generator(config.search.seed, "latency-checks", 0)
    table = measure_table(parts, facts, names, untimed.draw(section.num_checks, generator), section)
    write_record(own, SCHEMA, table.to_json())
    report(table, own)
    return table


def read_table(file: Path) -> LatencyTable:
    """Reads a table.

    Raises:
        UserError: it is not there, or damaged.
    """
    return LatencyTable.from_json(read_record(file, SCHEMA))


def covering(table: LatencyTable, names: dict[str, None], source: str) -> LatencyTable:
    """Returns the table; raises `UserError` if an operator of the space is not in it."""
    missing = [name for name in names if name not in table.operators]
    if missing:
        raise UserError(f"{source}: holds no latency of {', '.join(missing)}")
    return table


def timed_parts(section: LatencySection, encoder: MagicBertConfig, length: int) -> TimedParts:
    """Returns what is to be timed.

    Raises:
        UserError: a length that the encoder has no positions for, or no such device.
    """
    has_gpu = torch.cuda.is_available()
    device = ("cuda" if has_gpu else "cpu") if section.device == "auto" else section.device
    if device == "cuda" and not has_gpu:
        raise UserError("latency.device: 'cuda', but this machine shows no CUDA device")
    wanted = section.length or length
    if wanted > encoder.max_position_embeddings:
        raise UserError(
            f"latency.length: {wanted} tokens, but the encoder has "
            f"{encoder.max_position_embeddings} positions"
        )
    return TimedParts(encoder, section.rows, wanted, DTYPES[section.dtype], torch.device(device))


def facts_of(section: LatencySection, parts: TimedParts) -> dict[str, Any]:
    """Returns what latencies depend on: machine, settings, and sizes of the encoder."""
    is_gpu = parts.device.type == "cuda"
    return {
        **describe_machine(),
        "device": torch.cuda.get_device_name() if is_gpu else "cpu",
        "torch": torch.__version__,
        "num_threads": section.num_threads or torch.get_num_threads(),
        "rows": parts.rows,
        "length": parts.length,
        "dtype": section.dtype,
        "encoder": {name: getattr(parts.config, name) for name in CONFIG_FIELDS},
    }


def measure_table(
    parts: TimedParts,
    facts: dict[str, Any],
    names: dict[str, None],
    paths: list[Architecture],
    section: LatencySection,
) -> LatencyTable:
    """Measures embeddings, head, operators and whole models in turns."""
    LOGGER.info(
        "search: measuring the latency of %d operators, and of %d whole models to check their sums",
        len(names), len(paths),
    )  # fmt: skip
    calls: dict[str, Callable[[], Any]] = {
        "embeddings": parts.embeddings(),
        "head": parts.head(),
        **{f"operator {name}": call for name, call in parts.operators(names).items()},
        **{f"whole {path}": parts.whole(path) for path in paths},
    }
    found = measure(calls, num_threads=facts["num_threads"], seconds=section.seconds)
    operators = {name: found[f"operator {name}"] for name in names}
    table = LatencyTable(facts, found["embeddings"], found["head"], operators)
    checks = [Check(p, table.predict(p), found[f"whole {p}"].median_ns) for p in paths]
    return dataclasses.replace(table, checks=tuple(checks))


def report(table: LatencyTable, file: Path, stage: str = "search") -> None:
    """Says how good the sums are."""
    quantiles = table.error_quantiles()
    LOGGER.info(
        "%s: latencies measured: %s; sums are off by %.1f%% (median of %d whole models), "
        "%.1f%% at most; limits are held with %.1f%% added",
        stage, file, 100 * quantiles["0.5"], len(table.checks), 100 * quantiles["1"],
        100 * table.error_bound,
    )  # fmt: skip
