"""Masking against ``DataCollatorForLanguageModeling`` of transformers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.bench.step.documents import NOT_PREDICTED
from magicbert.config.sections import MaskingSection
from magicbert.data.counter_hash import key_of
from magicbert.data.masking import Masker

ROWS, LENGTH, VOCAB_SIZE, NUM_SPECIAL = 256, 128, 30522, 5
CLS, SEP, MASK = 2, 3, 4
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PROBABILITY = 0.15
# Five standard deviations of a share of so many tokens, each drawn on its own.
ALLOWED = 5 * (PROBABILITY * (1 - PROBABILITY) / (ROWS * LENGTH)) ** 0.5


def masking_case(seed: int, *, peers: bool) -> Case:
    """Returns the case: 256 rows of 128 tokens, as ``magicbert prepare`` stores them."""

    def build(device: torch.device) -> Trial:
        return MaskingTrial(seed).trial(peers=peers)

    variant: dict[str, int | str] = {"rows": ROWS, "length": LENGTH, "vocabulary": VOCAB_SIZE}
    return Case("masking", variant, build, unit="tokens", is_host_work=True)


class MaskingTrial:
    """Builds who masks.

    Args:
        seed: of the tokens.
    """

    def __init__(self, seed: int) -> None:
        drawn = np.random.default_rng(seed).integers(NUM_SPECIAL, VOCAB_SIZE, (ROWS, LENGTH))
        drawn[:, 0], drawn[:, -1] = CLS, SEP
        self.rows: npt.NDArray[np.uint16] = drawn.astype(np.uint16)

    def trial(self, *, peers: bool) -> Trial:
        """Returns everyone; each answers with masked ids, and with labels or where they are."""
        lineup = Lineup()
        lineup.add(OWN, self.own)
        if peers:
            lineup.add("transformers collator, from lists", self.collator_on_lists)
            lineup.add("transformers collator, from tensors", self.collator_on_tensors)
            lineup.add("whole tensors in torch", lambda: self.whole_tensors)
        return Trial(lineup=lineup, judge=self.verdict, floor=Floor(), units=ROWS * LENGTH)

    def own(self) -> Callable[[int], tuple[Tensor, Any]]:
        """Returns magicbert's: masked ids, and labels at the predicted positions alone."""
        masker = Masker(
            MaskingSection(), vocab_size=VOCAB_SIZE, mask_id=MASK, special_ids=range(NUM_SPECIAL)
        )
        samples, epochs = np.arange(ROWS), itertools.count()

        def call(index: int) -> tuple[Tensor, Any]:
            masked = masker(self.rows, key_of(0, next(epochs), samples))
            arrays = masked.input_ids, masked.positions, masked.labels
            ids, positions, labels = map(torch.from_numpy, arrays)
            return ids, (positions, labels)

        return call

    def collator_on_lists(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Returns the collator on lists of ids, as a loader of ``datasets`` gives them."""
        return collating([{"input_ids": row.tolist()} for row in self.rows])

    def collator_on_tensors(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Returns the collator on tensors."""
        rows = self.rows.astype(np.int64)
        return collating([{"input_ids": torch.from_numpy(row)} for row in rows])

    def whole_tensors(self, index: int) -> tuple[Tensor, Tensor]:
        """Masks by comparing random numbers for every token."""
        ids = torch.from_numpy(self.rows.astype(np.int64))
        chosen = (torch.rand(ids.shape) < PROBABILITY) & (ids >= NUM_SPECIAL)
        labels = ids.masked_fill(~chosen, NOT_PREDICTED)
        draw = torch.rand(ids.shape)
        ids[chosen & (draw < 0.8)] = MASK
        replaced = chosen & (draw >= 0.8) & (draw < 0.9)
        drawn = torch.randint(NUM_SPECIAL, VOCAB_SIZE, ids.shape)
        return torch.where(replaced, drawn, ids), labels

    def verdict(self, contender: Contender) -> Verdict:
        """Checks the share of predicted tokens, and that labels are what stood there."""
        ids, labels = contender.call(0)
        original = torch.from_numpy(self.rows.astype(np.int64))
        if isinstance(labels, tuple):
            positions, at_positions = labels
            labels = torch.full_like(ids, NOT_PREDICTED)
            labels.view(-1)[positions] = at_positions
        chosen = labels != NOT_PREDICTED
        is_faithful = torch.equal(labels[chosen], original[chosen]) and torch.equal(
            ids[~chosen], original[~chosen]
        )
        share = float(chosen.float().mean()) * LENGTH / (LENGTH - 2)
        return Verdict(abs(share - PROBABILITY) if is_faithful else 1.0, ALLOWED)


def collating(items: list[dict[str, Any]]) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Returns a call of the collator on a list of rows."""
    collator = DataCollatorForLanguageModeling(numbered_tokenizer(), mlm_probability=PROBABILITY)

    def call(index: int) -> tuple[Tensor, Tensor]:
        batch = collator(items)
        return batch["input_ids"], batch["labels"]

    return call


def numbered_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with a vocabulary of BERT's size, of which only the numbers matter."""
    words = [*SPECIAL, *(f"w{number}" for number in range(VOCAB_SIZE - NUM_SPECIAL))]
    vocabulary = {word: number for number, word in enumerate(words)}
    names = ("pad", "unk", "cls", "sep", "mask")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        **{f"{name}_token": word for name, word in zip(names, SPECIAL, strict=True)},
    )
