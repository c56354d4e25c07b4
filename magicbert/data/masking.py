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
from magicbert.data.counter_hash import GOLDEN, below, draws, key_of, mix

Integers = npt.NDArray[np.int64]

# Shares of the chosen tokens: (replaced by [MASK], replaced by a random token); the rest is kept.
RULES = {"bert": (0.8, 0.1), "electra": (0.85, 0.0)}
CHOICE_STREAM, REPLACEMENT_STREAM = 1, 2


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

    def __call__(self, rows: npt.NDArray[np.integer], keys: npt.NDArray[np.uint64]) -> MaskedRows:
        """Masks rows.

        Args:
            rows: ``[rows, length]`` token ids of any integer type; not changed.
            keys: ``[rows]`` one key per row, such as ``key_of(seed, epoch, row_index)``.
        """
        length = rows.shape[1]
        ids = rows.astype(np.int64)
        flat = ids.reshape(-1)
        positions = np.flatnonzero(self._choice_draws(keys, length) < self._choice_limit)
        positions = positions[self._is_ordinary[flat[positions]]]
        labels = flat[positions]
        indices, columns = np.divmod(positions, length)
        words = key_of(keys, REPLACEMENT_STREAM)[indices] + (columns + 1).astype(np.uint64) * GOLDEN
        self._replace(flat, positions, mix(words))
        return MaskedRows(ids, positions, labels)

    def _choice_draws(self, keys: npt.NDArray[np.uint64], length: int) -> npt.NDArray[np.uint32]:
        """Returns 32 random bits for each token, two tokens from one word."""
        words = draws(key_of(keys, CHOICE_STREAM), (length + 1) // 2)
        return words.astype("<u8", copy=False).view("<u4")[:, :length]

    def _replace(self, flat: Integers, positions: Integers, words: npt.NDArray[np.uint64]) -> None:
        """Replaces in place; the low half of each word decides how, the high half by what."""
        fate = words & np.uint64(0xFFFFFFFF)
        masked = fate < self._mask_limit
        flat[positions[masked]] = self.mask_id
        random = ~masked & (fate < self._random_limit)
        chosen = below(words[random], len(self._ordinary_ids))
        flat[positions[random]] = self._ordinary_ids[chosen]
