"""The ONNX folder: graphs, configuration, tokenizer, figures, and how to use them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from magicbert.bert.atomic_folder import atomic_folder
from magicbert.bert.exported import CARD, digests
from magicbert.errors import UserError
from magicbert.export.huggingface import refuse_to_replace_others
from magicbert.markdown import markdown_table
from magicbert.records import write_record, write_text_atomically

SCHEMA = "magicbert/onnx/1"
RECORD = "onnx.json"
GRAPH, INT8_GRAPH = "model.onnx", "model_int8.onnx"
COPIED = (
    "config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt",
)  # fmt: skip
FORM_TITLES = {"torch": "torch, fp32", "onnx": "ONNX, fp32", "int8": "ONNX, int8"}


def write_onnx_folder(
    folder: Path, source: Path, fill: Callable[[Path], dict[str, Any]], how: str
) -> dict[str, Any]:
    """Writes the folder whole or not at all; returns its record.

    Args:
        folder: what is written; an older one of the kind is replaced.
        source: folder of the model that its configuration and tokenizer come from.
        fill: writes the graphs into a folder and returns what is known of them.
        how: Python code that runs the graph.

    Raises:
        UserError: ``folder`` holds something else, or ``fill`` found a fault.
    """
    refuse_to_replace_others(folder, RECORD, SCHEMA, "an ONNX export")
    files = sorted({path for pattern in COPIED for path in source.glob(pattern)})
    if source.joinpath("config.json") not in files:
        raise UserError(f"{source}: no config.json")
    with atomic_folder(folder) as aside:
        for path in files:
            shutil.copyfile(path, aside / path.name)
        record = fill(aside)
        write_text_atomically(aside / CARD, onnx_card(record, how))
        record["files"] = digests(aside)
        write_record(aside / RECORD, SCHEMA, record)
    return record


def onnx_card(record: Mapping[str, Any], how: str) -> str:
    """Returns the text of ``README.md``."""
    timing = record["timing"]
    parts = [
        f"# {record['model']}, ONNX",
        f"`{GRAPH}` is the model {record['model']} ({record['class']}) with free numbers of rows "
        f"and positions, written by magicbert; `{INT8_GRAPH}`, where it is, has int8 weights.",
        f"## Use\n\n```python\n{how}```",
        f"## Forms\n\n{forms_table(record)}",
        f"Largest difference to torch over {record['parity']['rows']} rows of several lengths, "
        f"padded and full: {record['parity']['largest_difference']:.2g} (at most "
        f"{record['parity']['tolerance']:g} is accepted). Milliseconds of one call of "
        f"{timing['rows']} x {timing['length']} tokens on {timing['threads']} threads, median of "
        f"{timing['rounds']} turns taken in rotation, with the 95% interval of the median, on "
        f"{record['machine']['processor']}. {score_note(record)}",
    ]
    return "\n\n".join(parts) + "\n"


def forms_table(record: Mapping[str, Any]) -> str:
    """Returns a Markdown table with a row per form: size, difference, score, latency."""
    score = record["score"]
    columns = (score["metric"], *score["beside"]) if score["metric"] else ("score",)
    rows = []
    for name, form in record["forms"].items():
        wall = form["milliseconds"]["wall"]
        rows.append((
            FORM_TITLES[name],
            f"{form['bytes'] / 1e6:,.1f}",
            f"{form['largest_difference']:.2g}",
            *(f"{form['metrics'][name]:.4f}" if name in form["metrics"] else "–"
              for name in columns),
            f"{wall['median']:.2f} ({wall['low']:.2f} to {wall['high']:.2f})",
        ))  # fmt: skip
    head = ("form", "MB", "largest difference of logits", *columns, "ms a call")
    return markdown_table(head, rows)


def score_note(record: Mapping[str, Any]) -> str:
    """Returns what the score is of, or why there is none."""
    score = record["score"]
    if not score["metric"]:
        return f"No score: {score['reason']}."
    return f"Differences and {score['metric']} on {score['rows']} rows: {score['source']}."
