"""A tiny MagicBERT whose words are those of the embedded SQuAD task, and that task as files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from tiny_bert import save_tokenizer

from magicbert.bert.modeling.configuration_magicbert import AUTO_MAP, MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.finetune.squad.embedded_squad import write_embedded_squad
from magicbert.finetune.squad.task import EMBEDDED_SQUAD

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_answerer(
    folder: Path, texts: str, *, hidden: int = 32, architecture: str = "mha4-ffn"
) -> Path:
    """Saves a small encoder that knows every word of some texts."""
    words = sorted(set(re.findall(r"\w+|[^\w\s]", texts.lower())))
    save_tokenizer(folder, [*SPECIAL, *words])
    torch.manual_seed(0)
    config = MagicBertConfig(
        architecture=architecture, hidden_size=hidden, vocab_size=len(SPECIAL) + len(words),
        max_position_embeddings=96, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.2, auto_map=dict(AUTO_MAP),
    )  # fmt: skip
    MagicBertForMaskedLM(config).save_pretrained(folder)
    return folder


def write_voyages(folder: Path, num_articles: int) -> str:
    """Writes the embedded task as files of both versions; returns all that they say."""
    write_embedded_squad(folder, EMBEDDED_SQUAD)
    for split in ("train", "dev"):
        path = folder / f"{split}-v2.0.json"
        tree = json.loads(path.read_text())
        tree["data"] = tree["data"][:num_articles]
        path.write_text(json.dumps(tree))
        (folder / f"{split}-v1.1.json").write_text(json.dumps(answerable(tree)))
    return (folder / "train-v2.0.json").read_text() + (folder / "dev-v2.0.json").read_text()


def answerable(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns the questions that have an answer, in the format of version 1.1."""
    articles = [
        {
            "title": article["title"],
            "paragraphs": [
                {
                    "context": paragraph["context"],
                    "qas": [
                        {name: row[name] for name in ("id", "question", "answers")}
                        for row in paragraph["qas"]
                        if row["answers"]
                    ],
                }
                for paragraph in article["paragraphs"]
            ],
        }
        for article in tree["data"]
    ]
    return {"version": "1.1", "data": articles}
