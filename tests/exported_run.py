"""A run folder that is ready for export: prepared data and a retrained model, both tiny."""

from __future__ import annotations

import json
from pathlib import Path

from bert_examples import randomise
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.saving import save_supernet
from magicbert.bert.supernet import BertSupernet
from magicbert.data.manifest import Manifest, write_manifest
from magicbert.records import file_digest, write_record
from magicbert.space import Architecture, SearchSpace

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "old", "ship", "left", "harbour", "at", "dawn", "and", "sailed", "north", ".")
ARCHITECTURE = Architecture.parse("mha2-conv3-ffn-conv5x24")
RESULT = {
    "steps": 120, "tokens": 34567, "valid_loss": 1.25, "valid_accuracy": 0.5,
    "unigram_entropy": 2.5, "seconds": 12.0, "architecture": str(ARCHITECTURE),
    "parameters": 4000, "flops": 1e6, "anchor": None, "finished": True,
}  # fmt: skip


def write_run(root: Path, name: str = "demo") -> Path:
    """Writes ``prepare/`` and ``retrain/``; returns the run's folder."""
    run = root / name
    write_tokenizer(run / "prepare" / "tokenizer")
    write_prepared(run / "prepare")
    write_retrained(run / "retrain")
    return run


def write_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_max_length=20,
    ).save_pretrained(folder)  # fmt: skip


def write_prepared(folder: Path, vocab_size: int = len(SPECIAL + WORDS)) -> None:
    manifest = Manifest(
        vocab_size=vocab_size, length=16, layout="full",
        pad_id=0, cls_id=2, sep_id=3, mask_id=4, special_ids=(0, 1, 2, 3, 4),
        num_rows={"train": 0, "valid": 0}, num_tokens={"train": 0, "valid": 0},
        num_documents={"train": 0, "valid": 0}, shards={"train": (), "valid": ()},
        tokenizer_digest=file_digest(folder / "tokenizer" / "tokenizer.json"),
        settings={}, sources=(), skipped=(),
    )  # fmt: skip
    write_manifest(folder, manifest)


def write_retrained(folder: Path, space: SearchSpace | None = None) -> BertSupernet:
    config = MagicBertConfig(
        architecture="", vocab_size=len(SPECIAL + WORDS), hidden_size=16,
        max_position_embeddings=20,
    )  # fmt: skip
    model = BertSupernet(space or SearchSpace.of(ARCHITECTURE), config, seed=0)
    randomise(model)
    save_supernet(folder / "model", model, {})
    write_record(folder / "result.json", "magicbert/training-result/1", RESULT)
    (folder / "config.yaml").write_text("architecture: best\n")
    environment = {"commit": "0123abc", "packages": {"torch": "2.13.0", "triton": None}}
    (folder / "environment.json").write_text(json.dumps(environment))
    return model
