"""The comparison as a table of text: what Markdown and the page show alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from magicbert.markdown import markdown_table

Row = Mapping[str, Any]
FORM_HEADS = {"torch": "ms, torch", "onnx": "ms, ONNX", "int8": "ms, int8"}
NOTHING = "–"


@dataclass(frozen=True)
class TextTable:
    """A table of text with numbered reasons for what is missing.

    Attributes:
        head: names of the columns.
        rows: cells.
        reasons: in the order of their numbers, from 1 on.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reasons: tuple[str, ...]


class Reasons:
    """Numbers the reasons as cells name them."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def cell(self, reason: str | None) -> str:
        """Returns the cell of a missing value, with the number of its reason."""
        if reason is None:
            return NOTHING
        number = self.numbers.setdefault(reason, len(self.numbers) + 1)
        return f"{NOTHING} [{number}]"


def score_columns(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns ``(task, metric)`` of the main metrics, and every metric of SQuAD, in order."""
    shown = [
        (score["task"], score["metric"])
        for row in rows
        for score in row["scores"]
        if score["is_main"] or score["task"].startswith("squad")
    ]
    return list(dict.fromkeys(shown))


def text_table(rows: Sequence[Row]) -> TextTable:
    """Returns the table of all rows."""
    columns, reasons = score_columns(rows), Reasons()
    has_mean = any(row["glue_mean"] is not None for row in rows)
    head = ["model", "kind", "parameters", "GFLOPs", *FORM_HEADS.values()]
    head += [f"{task}, {metric}" for task, metric in columns] + ["GLUE mean"] * has_mean
    body = tuple(tuple(cells(row, columns, reasons, has_mean)) for row in rows)
    return TextTable(tuple(head), body, tuple(reasons.numbers))


def cells(
    row: Row, columns: Sequence[tuple[str, str]], reasons: Reasons, has_mean: bool
) -> Iterator[str]:
    """Yields the cells of one row."""
    missing = row["missing"]
    yield row["name"]
    yield row["kind"]
    if row["parameters"] is None:
        yield reasons.cell(missing.get("parameters"))
        yield reasons.cell(missing.get("flops"))
    else:
        yield f"{row['parameters'] / 1e6:,.2f} M"
        yield f"{row['flops'] / 1e9:,.3g}"
    for form in FORM_HEADS:
        times = row["latency"][form]
        if times is None:
            yield reasons.cell(missing.get(f"latency, {form}"))
        else:
            wall = times["wall"]
            yield f"{wall['median']:.2f} ({wall['low']:.2f} to {wall['high']:.2f})"
    found = {(score["task"], score["metric"]): score for score in row["scores"]}
    for column in columns:
        yield (
            score_text(found[column])
            if column in found
            else reasons.cell(
                missing.get("scores", f"{row['name']} was not fine-tuned on {column[0]}")
            )
        )
    if has_mean:
        mean = row["glue_mean"]
        yield (
            f"{100 * mean:.1f}"
            if mean is not None
            else reasons.cell(missing.get("scores", f"{row['name']} lacks a task of the eight"))
        )


def score_text(score: Row) -> str:
    """Returns median, range and number of seeds, times 100."""
    middle, low, high = (100 * score[name] for name in ("median", "minimum", "maximum"))
    seeds = "1 seed" if score["num_seeds"] == 1 else f"{score['num_seeds']} seeds"
    return f"{middle:.1f} ({low:.1f} to {high:.1f}, {seeds})"


def caption(payload: Row) -> str:
    """Returns what the columns mean."""
    timing = payload["timing"]
    return (
        "Parameters and FLOPs are those of the encoder with its embeddings, without heads, for one "
        f"row of {timing['length']} tokens. Latency: one call of {timing['rows']} x "
        f"{timing['length']} tokens with a classification head, {timing['threads']} threads of "
        f"{payload['machine']['processor']}, median of {timing['rounds']} turns in rotation with "
        "its 95% interval. Scores are those of dev sets times 100: median over seeds (lowest to "
        "highest) at the learning rate with the best median."
    )


def markdown(payload: Row) -> str:
    """Returns the table as Markdown, with its caption and reasons."""
    shown = payload["table"]
    notes = [note for row in payload["rows"] for note in row["notes"]]
    parts = [markdown_table(shown["head"], shown["rows"]), shown["caption"]]
    parts += [f"[{number}] {reason}" for number, reason in enumerate(shown["reasons"], start=1)]
    return "\n\n".join([*parts, *notes]) + "\n"
