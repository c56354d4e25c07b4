"""The tokenizer of ``magicbert prepare`` against transformers' and the bare Rust package."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.data.documents import clean
from magicbert.data.embedded import documents
from magicbert.data.encoding import DocumentBatch, Encoder
from magicbert.data.tokenizer import read_tokenizer

NUM_DOCUMENTS = 256
NUM_SETS = 4


def tokenizer_case(folder: Path, *, peers: bool) -> Case:
    """Returns the case: English documents of the embedded corpus, one process.

    Args:
        folder: what ``magicbert prepare`` wrote.
        peers: whether peers take part.
    """

    def build(device: torch.device) -> Trial:
        return TokenizerTrial(folder / "tokenizer").trial(peers=peers)

    variant: dict[str, int | str] = {"documents": NUM_DOCUMENTS}
    return Case("tokenizer", variant, build, unit="B", is_host_work=True)


class TokenizerTrial:
    """Builds who tokenises.

    Args:
        folder: of the tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = map(clean, documents())
        self.sets = [list(itertools.islice(texts, NUM_DOCUMENTS)) for _ in range(NUM_SETS)]

    def trial(self, *, peers: bool) -> Trial:
        """Returns everyone; each answers with the ids of all documents, one after another."""
        lineup = Lineup()
        lineup.add(OWN, self.own)
        if peers:
            lineup.add("transformers", self.transformers)
            lineup.add("tokenizers, encode_batch", self.bare)
        num_bytes = sum(len(text.encode()) for texts in self.sets for text in texts)
        return Trial(
            lineup=lineup,
            judge=self.verdict,
            floor=Floor(),
            units=num_bytes // NUM_SETS,
            num_sets=NUM_SETS,
        )

    def own(self) -> Callable[[int], Any]:
        """Returns magicbert's, which also cleans and fingerprints the documents."""
        encoder = Encoder(self.folder)
        numbers = np.arange(NUM_DOCUMENTS)
        return lambda index: encoder(DocumentBatch(numbers, self.sets[index % NUM_SETS])).ids

    def transformers(self) -> Callable[[int], Sequence[int]]:
        """Returns what ``AutoTokenizer`` makes of the same file."""
        tokenizer = AutoTokenizer.from_pretrained(str(self.folder))

        def call(index: int) -> list[int]:
            texts = self.sets[index % NUM_SETS]
            rows = tokenizer(
                texts, add_special_tokens=False, return_attention_mask=False,
                return_token_type_ids=False, verbose=False,
            )["input_ids"]  # fmt: skip
            return list(itertools.chain.from_iterable(rows))

        return call

    def bare(self) -> Callable[[int], Sequence[int]]:
        """Returns the Rust package without anything around it."""
        backend = read_tokenizer(self.folder).backend

        def call(index: int) -> list[int]:
            found = backend.encode_batch(self.sets[index % NUM_SETS], add_special_tokens=False)
            return list(itertools.chain.from_iterable(encoding.ids for encoding in found))

        return call

    def verdict(self, contender: Contender) -> Verdict:
        """Counts ids that differ from those of the bare package."""
        expected, found = np.asarray(self.bare()(1)), np.asarray(contender.call(1))
        same = expected.shape == found.shape
        return Verdict(float((expected != found).sum()) if same else float("inf"), 0.0)
