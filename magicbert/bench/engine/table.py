"""The rows of the record as a table: what a step costs beside a step of only the path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magicbert.bench.engine.matches import ALIGNED, MAGICBERT, PLAIN, Match
from magicbert.markdown import markdown_table

HEAD = (
    "ZeRO", "ranks", "candidates", "step / plain", "95%", "by the wall", "step phase",
    "forward, backward, step [ms]", "plain [ms]", "anchor [ms]", "bytes", "messages",
    "stock", "stock's step phase", "stock's bytes", "DDP",
)  # fmt: skip
NOTHING = "-"


def table_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns a row per stage, number of ranks and number of candidates, peers in its columns."""
    found = {Match.read(row): row for row in record["rows"]}
    own = sorted(
        (match for match in found if match.contender == MAGICBERT),
        key=lambda match: (match.candidates, match.ranks, match.stage),
    )
    return [table_row(match, found) for match in own]


def table_row(match: Match, found: Mapping[Match, Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns one row as text."""
    row = found[match]
    ratio = row["ratio_to_plain"][MAGICBERT]
    whole = ratio["cpu"]["whole"]
    own, plain = row["milliseconds"][MAGICBERT]["cpu"], row["milliseconds"][PLAIN]["cpu"]
    phases = ("forward", "backward", "step")
    return (
        str(match.stage), str(match.ranks), str(match.candidates),
        f"{whole['median']:.2f}", f"{whole['low']:.2f} to {whole['high']:.2f}",
        f"{ratio['wall']['whole']['median']:.2f}",
        f"{ratio['cpu']['step']['median']:.2f}",
        ", ".join(f"{own[phase]:.1f}" for phase in phases),
        ", ".join(f"{plain[phase]:.1f}" for phase in phases),
        f"{row['milliseconds'][ALIGNED]['cpu']['anchor_forward']:.1f}",
        f"{row['counted']['step_bytes_per_parameter']:.0f}", str(row["counted"]["messages"]),
        peer_ratio(found, match, "stock", "whole"), peer_ratio(found, match, "stock", "step"),
        peer_bytes(found, match, "stock"), peer_ratio(found, match, "ddp", "whole"),
    )  # fmt: skip


def peer_ratio(
    found: Mapping[Match, Mapping[str, Any]], match: Match, peer: str, phase: str
) -> str:
    """Returns a peer's ratio to the plain model in the same setting."""
    stage = 0 if peer == "ddp" else match.stage
    row = found.get(Match(peer, stage, match.ranks, match.candidates))
    if row is None:
        return NOTHING
    return f"{row['ratio_to_plain'][peer]['cpu'][phase]['median']:.2f}"


def peer_bytes(found: Mapping[Match, Mapping[str, Any]], match: Match, peer: str) -> str:
    """Returns the bytes that a peer's step phase touches for each parameter of the path."""
    row = found.get(Match(peer, match.stage, match.ranks, match.candidates))
    return NOTHING if row is None else f"{row['counted']['step_bytes_per_parameter']:.0f}"


def markdown(record: Mapping[str, Any]) -> str:
    """Returns the table and its origin as Markdown."""
    versions = ", ".join(
        f"{name} {record['versions'][name]}" for name in ("python", "torch", "deepspeed")
    )
    machine = record["machine"]
    return "\n".join([
        markdown_table(HEAD, table_rows(record)), "",
        f"Commit `{str(record['commit'])[:12]}`, {versions}; {machine['processor']}, "
        f"{machine['processors']} processors, {record['threads_per_rank']} thread per rank; "
        f"seed {record['setting']['seed']}. Load average of the machine while it ran: "
        f"{load_range(record)}.",
    ])  # fmt: skip


def load_range(record: Mapping[str, Any]) -> str:
    """Returns the lowest and highest load average; this run's own ranks are part of it."""
    loads = [load for row in record["rows"] for load in row["load_average"]]
    return f"{min(loads):.1f} to {max(loads):.1f}" if loads else NOTHING
