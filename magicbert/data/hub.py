"""A Hugging Face data set -> documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from magicbert.errors import UserError


def hub_documents(name: str, field: str, *, stream: bool) -> Iterator[str]:
    """Yields the text of each row of ``hf:NAME[:CONFIG][:SPLIT]``.

    The parts stand for themselves, so a split without a config is ``hf:NAME::SPLIT``; the split
    is ``train`` unless given. NAME may be a folder.

    Args:
        name: with its ``hf:``.
        field: column that holds the text.
        stream: read over the network without storing, for the beginning of a large set;
            otherwise the set is downloaded once and memory-mapped.

    Raises:
        UserError: the set cannot be loaded, or has no such column of text.
    """
    for number, row in enumerate(_rows(name, field, stream), start=1):
        text = row[field]
        if not isinstance(text, str):
            raise UserError(
                f"{name}: row {number}: {field!r} must be text, got {type(text).__name__}"
            )
        yield text


def _rows(name: str, field: str, stream: bool) -> Iterator[dict[str, Any]]:
    import datasets

    path, config, split = parse_name(name)
    try:
        rows = datasets.load_dataset(path, config or None, split=split, streaming=stream)
    except Exception as error:  # datasets raises dozens of kinds, from the network to the schema
        raise UserError(f"{name}: cannot be loaded: {error}") from error
    columns = rows.column_names or [field]  # a stream may not know its columns
    if field not in columns:
        raise UserError(
            f"{name}: no column {field!r} (has {', '.join(columns)}); set corpus.text_field"
        )
    yield from rows.select_columns([field])


def parse_name(name: str) -> tuple[str, str, str]:
    """Splits ``hf:NAME[:CONFIG][:SPLIT]`` into name, config (or empty) and split."""
    path, *rest = name.removeprefix("hf:").split(":")
    if not path or len(rest) > 2:
        raise UserError(f"{name}: must be hf:NAME[:CONFIG][:SPLIT], such as hf:NAME::validation")
    config, split = (*rest, "", "")[:2]
    return path, config, split or "train"
