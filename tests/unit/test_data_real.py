"""A bounded part of real files, when ``MAGICBERT_DATA`` names the folder that holds them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from tiny_corpus import config_for, prepare_folder

from magicbert.config.sections import MaskingSection
from magicbert.data.manifest import read_manifest
from magicbert.data.source import TokenSource
from magicbert.data.statistics import masked_unigram_entropy

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not os.environ.get("MAGICBERT_DATA"), reason="MAGICBERT_DATA is not set"),
]


def test_wikipedia_with_a_trained_vocabulary(tmp_path: Path) -> None:
    source = "$MAGICBERT_DATA/corpus/wikipedia-train.txt.xz"
    config = config_for(
        tmp_path, source,
        corpus={"max_documents": 400},
        tokenizer={"vocab_size": 3000},
        shards={"length": 128, "rows_per_shard": 1000},
    )  # fmt: skip
    folder = prepare_folder(config)
    manifest = read_manifest(folder)

    assert sum(manifest.num_documents.values()) == 400
    assert manifest.sources[0]["name"] == source
    assert manifest.vocab_size == 3000
    source_of_batches = TokenSource(
        folder, MaskingSection(), seed=0, rows_per_step=32, rows_per_micro_batch=8
    )
    assert 5.0 < masked_unigram_entropy(source_of_batches, 20) < math.log(3000)


def test_openstax_with_berts_own_vocabulary_and_packed_documents(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = config_for(
        tmp_path, "$MAGICBERT_DATA/corpus/openstax-valid.txt.xz",
        corpus={"max_documents": 60},
        tokenizer={"kind": "load", "path": "$MAGICBERT_DATA/vocab/bert-base-uncased-vocab.txt"},
        shards={"length": 128, "layout": "packed"},
    )  # fmt: skip
    folder = prepare_folder(config)
    manifest = read_manifest(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")

    assert manifest.vocab_size == 30522
    assert (manifest.pad_id, manifest.cls_id, manifest.sep_id, manifest.mask_id) == (
        0,
        101,
        102,
        103,
    )
    # The ids that BERT's published tokenizer gives.
    assert tokenizer("Hello, world!")["input_ids"] == [101, 7592, 1010, 2088, 999, 102]
    num_places = manifest.num_rows["train"] * manifest.length
    assert manifest.num_tokens["train"] > 0.9 * num_places
