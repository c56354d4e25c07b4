"""From raw text to masked rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSection:
    """Raw text in."""

    sources: tuple[str, ...] = option(
        ("embedded",),
        "files, folders, globs, 'embedded' (text of this Python), or 'hf:NAME[:CONFIG][:SPLIT]'",
    )
    valid_sources: tuple[str, ...] = option(
        (), "held-out sources; empty = split off by document hash"
    )
    text_field: str = option("text", "field that holds the text in JSONL and Parquet")
    document_separator: Literal["blank-line", "line", "file"] = option(
        "blank-line", "what ends a document in plain text"
    )
    valid_fraction: float = option(
        0.01, "share of documents held out, chosen by document hash", within="[0, 1)"
    )
    deduplicate: bool = option(True, "drop documents whose text was seen before")
    on_bad_utf8: Literal["refuse", "skip"] = option(
        "refuse", "what to do with a document that is not UTF-8"
    )
    max_documents: int = option(0, "stop after so many documents; 0 = all", within="[0, 1e12]")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not self.sources:
            yield "sources: give at least one file, folder, glob, 'embedded' or 'hf:NAME'"
        if self.valid_fraction == 0.0 and not self.valid_sources:
            yield "valid_fraction: must be above 0 when valid_sources is empty"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSection:
    """The tokenizer: trained on the corpus or loaded."""

    kind: Literal["wordpiece", "bpe", "load"] = option(
        "wordpiece", "train WordPiece, train byte-level BPE, or load"
    )
    path: str = option("", "for 'load': vocab.txt, tokenizer.json, a folder or a hub name")
    vocab_size: int = option(30522, "number of tokens to train", within="[100, 1e7]")
    lowercase: bool = option(True, "fold case (WordPiece)")
    sample_megabytes: int = option(
        64, "text to train on at most, in MB, spread over the corpus", within="[1, 1e6]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.kind == "load" and not self.path:
            yield "path: needed when kind is 'load'"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSection:
    """Packed rows of tokens."""

    length: int = option(128, "tokens per row, special tokens included", within="[8, 65536]")
    layout: Literal["full", "packed"] = option(
        "full",
        "'full': RoBERTa's FULL-SENTENCES, rows cross documents; "
        "'packed': whole documents side by side with segment ids",
    )
    rows_per_shard: int = option(65536, "rows in one Arrow file", within="[1, 1e8]")
    num_workers: int = option(0, "processes that tokenise; 0 = one per core", within="[0, 4096]")


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskingSection:
    """Which tokens are predicted (BERT 3.1; ELECTRA 3.1)."""

    rule: Literal["bert", "electra"] = option(
        "bert", "'bert': 80% [MASK], 10% random, 10% kept; 'electra': 85% [MASK], 15% kept"
    )
    probability: float = option(0.15, "share of the tokens that are predicted", within="(0, 1)")
