"""The codes that a stopped training run leaves with; a scheduler can tell them apart."""

from __future__ import annotations

from magicbert.errors import EXIT_STOPPED, EXIT_USER_ERROR

EXIT_INTERRUPTED = EXIT_STOPPED  # with a checkpoint of the last step
EXIT_DISAGREEMENT = 76  # EX_PROTOCOL: the ranks were not doing the same thing
EXIT_DIVERGED = 77  # the numbers went bad: too many steps skipped, or weights not finite
EXIT_HUNG = 78  # a phase took longer than its limit; the stuck rank is named
EXIT_LOST_RANK = 79  # another rank died
EXIT_TERMINATED = 143  # 128 + SIGTERM: a second signal, left at once without saving

MEANINGS = {
    EXIT_USER_ERROR: "a mistake in what the user gave",
    EXIT_INTERRUPTED: "stopped, with a checkpoint",
    EXIT_DISAGREEMENT: "the ranks disagreed",
    EXIT_DIVERGED: "training diverged",
    EXIT_HUNG: "a rank was stuck",
    EXIT_LOST_RANK: "a rank died",
    EXIT_TERMINATED: "a second signal, nothing saved",
}
