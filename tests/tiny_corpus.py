"""A small corpus of made-up words, and a prepared folder of it."""

from __future__ import annotations

import random
from pathlib import Path

from magicbert.config.roots import PrepareConfig
from magicbert.config.sections import CorpusSection, RunSection, ShardSection, TokenizerSection
from magicbert.stages import prepare

SYLLABLES = ["ka", "lo", "mi", "ter", "un", "ves", "dro", "pin", "sal", "gor", "eth", "ri"]


def make_documents(count: int, seed: int = 0, words: tuple[int, int] = (3, 60)) -> list[str]:
    """Returns distinct documents of one or more lines."""
    generator = random.Random(seed)
    documents = []
    for number in range(count):
        tokens = [
            "".join(generator.choices(SYLLABLES, k=generator.randint(1, 3)))
            for _ in range(generator.randint(*words))
        ]
        middle = len(tokens) // 2
        documents.append(
            f"item {number}\n{' '.join(tokens[:middle])}\n{' '.join(tokens[middle:])}."
        )
    return documents


def write_corpus(path: Path, documents: list[str]) -> Path:
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def config_for(
    root: Path,
    *sources: Path | str,
    corpus: dict[str, object] | None = None,
    tokenizer: dict[str, object] | None = None,
    shards: dict[str, object] | None = None,
) -> PrepareConfig:
    """Returns a small configuration; the sections' fields can be overridden."""
    return PrepareConfig(
        run=RunSection(root=str(root), name="tiny"),
        corpus=CorpusSection(
            **{
                "sources": tuple(str(source) for source in sources),
                "valid_fraction": 0.1,
                **(corpus or {}),
            }
        ),
        tokenizer=TokenizerSection(**{"vocab_size": 200, **(tokenizer or {})}),
        shards=ShardSection(
            **{"length": 32, "rows_per_shard": 50, "num_workers": 1, **(shards or {})}
        ),
    )


def prepare_folder(config: PrepareConfig) -> Path:
    """Runs the stage and returns the prepared folder."""
    prepare.run(config)
    return Path(config.run.root) / config.run.name / "prepare"
