"""Dynamic masking as a pure function of (seed, epoch, sample), on numpy arrays.

A token is chosen with the given probability. Of the chosen ones BERT (3.1) replaces 80 % by
[MASK] and 10 % by a random token and keeps 10 %; ELECTRA (3.1) masks 85 % and keeps 15 %.
Special tokens and padding are never chosen, and a random token is never a special one. Only the
chosen tokens are touched after the first comparison, which is what makes it fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from magicbert.config.sections import MaskingSection
from magicbert.data.counter_hash import GOLDEN, Words, below, draws, mix

Integers = npt.NDArray[np.int64]

# Shares of the chosen tokens: (replaced by [MASK], replaced by a random token); the rest is kept.
RULES = {"bert": (0.8, 0.1), "electra": (0.85, 0.0)}
# Counters of a row's stream: one for each two tokens from 1 on, and one for each chosen token.
FIRST_REPLACEMENT_COUNTER = np.uint64(2**32)
LOW_HALF = np.uint64(2**32 - 1)


@dataclass(frozen=True)
class MaskedRows:
    """Rows after masking.

    Attributes:
        input_ids: ``[rows, length]``.
        positions: ``[M]`` ascending flat indices of the predicted tokens.
        labels: ``[M]`` what stood there.
    """

    input_ids: Integers
    positions: Integers
    labels: Integers


class Masker:
    """Chooses and replaces tokens.

    Args:
        masking: rule and probability.
        vocab_size: number of token ids.
        mask_id: id of [MASK].
        special_ids: ids that are neither chosen nor drawn.
    """

    def __init__(
        self, masking: MaskingSection, *, vocab_size: int, mask_id: int, special_ids: Iterable[int]
    ) -> None:
        self.mask_id = mask_id
        self._is_ordinary = np.ones(vocab_size, dtype=bool)
        self._is_ordinary[list(special_ids)] = False
        self._ordinary_ids = np.flatnonzero(self._is_ordinary)
        share_masked, share_random = RULES[masking.rule]
        self._choice_limit = np.uint32(round(masking.probability * 2**32))
        self._mask_limit = np.uint64(round(share_masked * 2**32))
        self._random_limit = np.uint64(round((share_masked + share_random) * 2**32))

    def __call__(self, rows: npt.NDArray[np.integer], keys: Words) -> MaskedRows:
        """Masks rows.

        Args:
            rows: ``[rows, length]`` token ids of any integer type; not changed.
            keys: ``[rows]`` one key per row, such as ``key_of(seed, epoch, row_index)``.
        """
        length = rows.shape[1]
        ids = rows.astype(np.int64)
        flat = ids.reshape(-1)
        words = draws(keys, (length + 1) // 2)
        halves = words.astype("<u8", copy=False).view("<u4")[:, :length]
        positions = np.flatnonzero(halves < self._choice_limit)
        labels = flat[positions]
        is_ordinary = self._is_ordinary[labels]
        positions, labels = positions[is_ordinary], labels[is_ordinary]
        owners = positions // length
        counters = (positions - owners * length).astype(np.uint64) + FIRST_REPLACEMENT_COUNTER
        flat[positions] = self._replacements(labels, mix(keys[owners] + counters * GOLDEN))
        return MaskedRows(ids, positions, labels)

    def _replacements(self, labels: Integers, words: Words) -> Integers:
        """Returns what stands for each label: the low half decides how, the high half by what."""
        fates = words & LOW_HALF
        replaced = np.where(fates < self._mask_limit, self.mask_id, labels)
        random = np.flatnonzero((fates >= self._mask_limit) & (fates < self._random_limit))
        replaced[random] = self._ordinary_ids[below(words[random], len(self._ordinary_ids))]
        return replaced
