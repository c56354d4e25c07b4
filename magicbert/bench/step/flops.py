"""The floating-point operations that a training step cannot do without."""

from __future__ import annotations

from collections.abc import Sequence


def bert_step_flops(
    num_layers: int, hidden_size: int, vocab_size: int, lengths: Sequence[int], num_predicted: int
) -> int:
    """Returns the FLOPs of forward and backward, two for a multiplication with addition.

    Per token ``6 P + 12 L H s`` with ``P = 12 L H^2`` and ``s`` the length of its document, and
    ``6 (H^2 + H V)`` for each predicted token; nothing for padding, nothing computed twice.

    Args:
        num_layers: L, layers of attention and feed-forward (inner width 4 H).
        hidden_size: H.
        vocab_size: V.
        lengths: of the documents.
        num_predicted: positions that the head sees.
    """
    body = 6 * 12 * num_layers * hidden_size**2 * sum(lengths)
    attention = 12 * num_layers * hidden_size * sum(length**2 for length in lengths)
    return body + attention + head_flops(hidden_size, vocab_size, num_predicted)


def head_flops(hidden_size: int, vocab_size: int, num_predicted: int) -> int:
    """Returns the FLOPs of transform and decoder, forward and backward."""
    return 6 * num_predicted * (hidden_size**2 + hidden_size * vocab_size)
