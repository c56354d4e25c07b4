"""A tiny random BERT with a WordPiece tokenizer, saved as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_tiny_bert(folder: Path, words: Sequence[str], *, hidden: int = 16) -> Path:
    """Saves a model of one layer whose vocabulary is ``words`` and single characters."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,:;()[]{}'\"-_=*/\\#%&@!?<>|+~^$`"
    pieces = [*SPECIAL, *dict.fromkeys([*words, *characters])]
    pieces += [f"##{character}" for character in characters]
    save_tokenizer(folder, pieces)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=hidden, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=2 * hidden, max_position_embeddings=64, num_labels=2,
        initializer_range=0.2,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, pieces: Sequence[str]) -> None:
    """Saves a WordPiece tokenizer with these pieces."""
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    ).save_pretrained(folder)
