"""Parts of the model card that are read off a run's records: training, fine-tuning, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from magicbert.data.manifest import Manifest
from magicbert.export.provenance import Provenance
from magicbert.markdown import markdown_table

# What of a training's configuration a card names: section, field, words.
SETTINGS = (
    ("training", "rows_per_step", "rows of an optimizer step"),
    ("training", "num_steps", "optimizer steps, as configured"),
    ("optimizer", "name", "optimizer"),
    ("optimizer", "learning_rate", "peak learning rate"),
    ("optimizer", "warmup_steps", "steps of warm-up"),
    ("training", "precision", "number format"),
    ("launch", "num_ranks", "ranks of a host"),
)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run's records say of a model.

    Attributes:
        manifest: of the prepared data.
        settings: resolved configuration of the training stage; empty = not known.
        scores: summary rows of the fine-tuning of this very model; none = there is none.
    """

    manifest: Manifest
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: Sequence[Mapping[str, Any]] = ()


def training_section(facts: RunFacts, provenance: Provenance) -> str:
    """Returns corpus, setting and cost of the training."""
    rows = [*corpus_rows(facts.manifest), *setting_rows(facts.settings)]
    seconds = provenance.result.get("seconds")
    if seconds is not None:
        rows.append(("hours of training, on the wall", f"{seconds / 3600:,.2f}"))
    return f"## Training\n\n{markdown_table(('what', ''), rows)}"


def corpus_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yields what the corpus was."""
    for name, words in (("train", "training"), ("valid", "held-out")):
        documents, tokens = manifest.num_documents[name], manifest.num_tokens[name]
        yield f"{words} text", f"{documents:,} documents, {tokens:,} tokens"
    yield "sources", f"{len(manifest.sources):,}, with digests in the run's `manifest.json`"
    yield "left out", f"{sum(item.count for item in manifest.skipped):,} items"
    yield "tokens of a row", f"{manifest.length:,} ({manifest.layout})"


def setting_rows(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the settings that are known."""
    for section, name, words in SETTINGS:
        value = settings.get(section, {}).get(name)
        if value is not None:
            yield words, f"{value:,}" if isinstance(value, int) else f"{value}"


def fine_tuning_section(facts: RunFacts) -> str:
    """Returns the scores on dev sets, or how to get them."""
    if not facts.scores:
        return (
            "## Fine-tuning\n\nNo fine-tuning of this model is recorded in its run. Fine-tune it, "
            "then export it again: the card then has the scores."
        )
    rows = [
        (
            row["task"], row["metric"], f"{100 * row['median']:.1f}",
            f"{100 * row['minimum']:.1f} to {100 * row['maximum']:.1f}", f"{row['num_seeds']}",
            f"{row['learning_rate']:g}",
        )
        for row in facts.scores
    ]  # fmt: skip
    head = ("task", "metric", "median", "range", "seeds", "learning rate")
    return (
        f"## Fine-tuning\n\n{markdown_table(head, rows)}\n\n"
        "Dev sets, times 100, at the learning rate with the best median over seeds. That rate was "
        "chosen on the same dev sets, which makes the scores look a little better than they are."
    )


def limitations_section(facts: RunFacts, language: str, max_positions: int) -> str:
    """Returns what the model is not for, as far as its records tell."""
    tokens = facts.manifest.num_tokens["train"]
    lines = (
        f"It has seen {tokens:,} different tokens of text in the language {language!r}; on other "
        "text, languages and times it was not measured.",
        "What its corpus says, wrong or harmful, it may have learned; nothing was filtered beyond "
        "what the preparation reports, and no test for bias was made.",
        f"Rows of more than {max_positions:,} tokens must be cut.",
        "It predicts hidden tokens and gives features; it was not trained to write, to follow "
        "instructions, or to state facts.",
    )
    return "## Limitations\n\n" + "\n".join(f"- {line}" for line in lines)
