"""The rows of a record as tables: one per case name, a line per size and way of measuring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from magicbert.bench.ceilings import COPY, MATMUL
from magicbert.bench.registry import OWN
from magicbert.markdown import markdown_table

NOTHING = "-"
ABSENT = "absent"
SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
# What a reader of CPU times needs is processor time; the wall's is in the record.
HIDDEN_MODES = {"wall"}


@dataclass(frozen=True, slots=True)
class SuiteTable:
    """One table.

    Attributes:
        title: the name of its case.
        head: columns.
        lines: cells.
        absent: why columns are empty, by peer.
    """

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    absent: Mapping[str, str]


def tables(record: Mapping[str, Any]) -> list[SuiteTable]:
    """Returns a table per case name, in the order of the rows."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        by_name.setdefault(row["case"], []).append(row)
    return [table_of(name, rows) for name, rows in by_name.items()]


def table_of(name: str, rows: Sequence[Mapping[str, Any]]) -> SuiteTable:
    """Returns the table of one case name."""
    sizes = ordered(key for row in rows for key in row["variant"])
    facts = ordered(key for row in rows for key in row["facts"])
    peers = ordered(peer for row in rows for peer in peers_of(row))
    has_floor = any(row["floor"]["bytes"] or row["floor"]["flops"] for row in rows)
    head = (
        *sizes, "by", "time", f"{rows[0]['unit']}/s", *(["% of floor"] if has_floor else []),
        *facts, *peers,
    )  # fmt: skip
    lines = [
        (
            *(str(row["variant"].get(size, NOTHING)) for size in sizes),
            mode,
            *own_cells(row, figures, has_floor),
            *(fact_cell(row["facts"].get(fact)) for fact in facts),
            *(peer_cell(row, figures, peer) for peer in peers),
        )
        for row in rows
        for mode, figures in row["modes"].items()
        if mode not in HIDDEN_MODES
    ]
    absent = {peer: why for row in rows for peer, why in reasons(row).items()}
    return SuiteTable(name, head, tuple(lines), absent)


def ordered(names: Iterator[str]) -> list[str]:
    """Returns each name once, in the order of its first appearance."""
    return list(dict.fromkeys(names))


def peers_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields everyone but magicbert that a row knows, those absent last."""
    yield from (name for name in row["verdicts"] if name != OWN)
    yield from (name for name in row["failed"] if name != OWN)
    yield from row["absent"]


def reasons(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns why contenders of a row have no time."""
    by_mode = [figures["failed"] for figures in row["modes"].values()]
    found = {**row["absent"], **row["failed"]}
    for failed in by_mode:
        found |= failed
    return found


def own_cells(row: Mapping[str, Any], figures: Mapping[str, Any], has_floor: bool) -> Iterator[str]:
    """Yields magicbert's time, rate and share of the floor."""
    own = figures["microseconds"].get(OWN)
    if own is None:
        yield from [NOTHING] * (2 + has_floor)
        return
    yield time_text(own["median"])
    yield si(1e6 * row["units"] / own["median"])
    if has_floor:
        percent = figures["percent_of_floor"].get(OWN)
        yield NOTHING if percent is None else f"{percent['median']:.0f}"


def peer_cell(row: Mapping[str, Any], figures: Mapping[str, Any], peer: str) -> str:
    """Returns how many times magicbert's time a peer takes, and the interval."""
    ratio = figures["peer_over_own"].get(peer)
    if ratio is not None:
        return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return ABSENT if peer in reasons(row) else NOTHING


def fact_cell(value: float | str | None) -> str:
    """Returns a figure without a clock."""
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else f"{value:.4g}"


def time_text(microseconds: float) -> str:
    """Returns a time with its unit."""
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def si(value: float) -> str:
    """Returns a number with three digits and a suffix, such as ``1.23 G``."""
    for size, suffix in SUFFIXES:
        if value >= size:
            return f"{value / size:.3g} {suffix}".strip()
    return f"{value:.3g}"


def markdown(record: Mapping[str, Any]) -> str:
    """Returns all tables and where they come from as Markdown."""
    parts = []
    for table in tables(record):
        parts += [f"### {table.title[0].upper()}{table.title[1:]}", ""]
        parts += [markdown_table(table.head, table.lines), ""]
        if table.absent:
            parts += [f"Not timed: {'; '.join(f'{n} ({w})' for n, w in table.absent.items())}.", ""]
    return "\n".join([*parts, origin(record)])


def origin(record: Mapping[str, Any]) -> str:
    """Returns device, versions, commit, ceilings and load in one paragraph."""
    device, machine = record["device"], record["machine"]
    where = device.get("name") or (
        f"{machine['processor']}, {machine['processors']} processors ({device['capability']}), "
        f"threads used: {device['threads']}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    loads = [load for row in record["rows"] for load in row["load_average"]]
    load = f"; load average {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    return (
        f"Measured on {where}; commit `{str(record['commit'])[:12]}`; {versions}. "
        f"Same-run ceilings: {ceilings_text(record)}. Rounds: {record['setting']['rounds']}{load}."
    )


def ceilings_text(record: Mapping[str, Any]) -> str:
    """Returns the range of the copy bandwidth and of the matmul rate over all rows."""
    texts = []
    for name, unit in ((COPY, "B/s"), (MATMUL, "FLOP/s")):
        rates = [
            figures["rates"][name]
            for row in record["rows"]
            for mode, figures in row["modes"].items()
            if mode not in HIDDEN_MODES and name in figures["rates"]
        ]
        if rates:
            texts.append(f"{name} {si(min(rates))}{unit} to {si(max(rates))}{unit}")
    return ", ".join(texts) or "none"
