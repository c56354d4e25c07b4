"""A prepared folder, a teacher trained by nobody, and the configuration of a tiny compression."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bert_examples import randomise
from tiny_corpus import config_for, make_documents, prepare_folder, write_corpus

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.saving import save_supernet
from magicbert.bert.supernet import BertSupernet
from magicbert.config.roots import CompressConfig
from magicbert.config.sections import (
    AlignmentSection,
    BlocksSection,
    BlockTrainingSection,
    OptimizerSection,
    RunSection,
    SamplingSection,
    SelectSection,
)
from magicbert.data.manifest import read_manifest
from magicbert.space import Architecture, SearchSpace

TEACHER = Architecture.parse("mha2-ffn-mha2-ffn")


def write_run(root: Path) -> Path:
    """Prepares data and saves a teacher beside it; returns the run's folder."""
    source = write_corpus(root / "corpus.txt", make_documents(120))
    prepared = prepare_folder(config_for(root, source))
    manifest = read_manifest(prepared)
    sizes = MagicBertConfig(
        architecture="", vocab_size=manifest.vocab_size, hidden_size=32,
        max_position_embeddings=manifest.length, pad_token_id=manifest.pad_id,
    )  # fmt: skip
    teacher = BertSupernet(SearchSpace.of(TEACHER), sizes, seed=1)
    details = {"tokenizer_digest": manifest.tokenizer_digest, "data_digest": manifest.digest}
    save_supernet(root / "tiny" / "teacher", randomise(teacher), details)  # type: ignore[arg-type]
    return root / "tiny"


def tiny_config(folder: Path, **changes: Any) -> CompressConfig:
    """Two blocks of two layers, widths 8 and 16, a few steps; sections can be replaced."""
    config = CompressConfig(
        run=RunSection(root=str(folder.parent), name=folder.name),
        teacher=str(folder / "teacher"),
        blocks=BlocksSection(
            num_blocks=2, layers_per_block=2, widths=(8, 16), head_size=8,
            operators=("mha", "ffn", "conv3"),
        ),
        sampling=SamplingSection(method="magic-t"),
        alignment=AlignmentSection(enabled=True, num_blocks=2, every=2, num_dev_batches=1),
        optimizer=OptimizerSection(learning_rate=3e-3, warmup_steps=2),
        training=BlockTrainingSection(
            num_steps=12, rows_per_step=8, rows_per_micro_batch=4, precision="fp32", num_bins=3,
            warmup_rounds=1, steps_per_round=3, samples_per_bin=6, keep_per_bin=2,
            num_dev_batches=1, log_every=2, checkpoint_every=2,
        ),
        select=SelectSection(num_candidates=5, num_dev_batches=1, rows_per_batch=4, num_results=3),
    )  # fmt: skip
    return dataclasses.replace(config, **changes)
