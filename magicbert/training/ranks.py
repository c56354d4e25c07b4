"""The ranks of a run and what they tell each other on the host.

Everything goes through `Ranks.exchange`, whose message begins with a fingerprint of the call: what
is being done, and the facts that must be the same everywhere. Ranks that have lost step with each
other meet here in different calls, or in the same call with other facts, and all of them notice in
that very message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from magicbert.errors import UserError
from magicbert.training.watching.exit_codes import EXIT_DISAGREEMENT

# Doubles of the first message of every call, whatever it is: ranks that are in different calls
# must not send different sizes, which gloo would answer with a hang.
FRAME = 32
# A fingerprint is cut into words so short that sums of their squares over 2**20 ranks are exact.
WORDS, WORD_BITS = 5, 16
LARGEST = 2**53


class AgreedError(UserError):
    """An error that every rank raises; only the first rank prints it."""


class DisagreementError(AgreedError):
    """The ranks are not doing the same thing."""

    exit_code = EXIT_DISAGREEMENT


@dataclass(frozen=True)
class Ranks:
    """Small sums and agreements over gloo, which never waits for an accelerator.

    Attributes:
        rank: this process.
        num_ranks: number of processes.
        group: a gloo process group over all ranks.
    """

    rank: int
    num_ranks: int
    group: Any

    @classmethod
    def of_process_group(cls) -> Ranks:
        """Reads the default process group, which must stand."""
        return cls(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))

    @property
    def is_first(self) -> bool:
        """Whether this rank writes and reports."""
        return self.rank == 0

    def exchange(
        self, doing: str, values: Sequence[float] = (), facts: Mapping[str, object] | None = None
    ) -> list[float]:
        """Returns the sums over ranks, once it is known that all ranks make the same call.

        It is one all-reduce while ``values`` are few (`FRAME` less the fingerprint).

        Args:
            doing: what the call is for.
            values: numbers to sum, in double precision; their sums are bit-equal on every rank.
            facts: what must be the same on every rank.

        Raises:
            DisagreementError: on every rank, with the views of all of them.
        """
        view = {"doing": doing, **(facts or {})}
        head = fingerprint(view, len(values))
        message = torch.zeros(FRAME, dtype=torch.float64)
        message[: len(head)] = head
        fits = len(values) <= FRAME - len(head)
        if fits and values:
            message[len(head) : len(head) + len(values)] = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(message, group=self.group)
        if not is_common(message[: len(head)], self.num_ranks):
            raise DisagreementError(self._describe_views(view))
        if fits:
            return [float(value) for value in message[len(head) :][: len(values)].tolist()]
        rest = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(rest, group=self.group)
        return [float(value) for value in rest.tolist()]

    def _describe_views(self, view: Mapping[str, object]) -> str:
        """Asks every rank for its view: all of them have seen the same mismatch."""
        views = self._all_gather({name: str(value) for name, value in view.items()})
        return f"the ranks have lost step with each other:\n{table(views)}"

    def sum(self, values: Sequence[int], doing: str = "sum") -> list[int]:
        """Returns the sums over ranks of whole numbers below 2**53."""
        if any(abs(value) >= LARGEST for value in values):
            raise ValueError(f"numbers must be below 2**53: {values}")
        return [int(value) for value in self.exchange(doing, values)]

    def sum_floats(self, values: Sequence[float], doing: str = "sum of floats") -> list[float]:
        """Returns the sums over ranks in double precision; bit-equal on every rank."""
        return self.exchange(doing, values)

    def gather_floats(self, values: Sequence[float], doing: str) -> list[list[float]]:
        """Returns every rank's numbers, first rank first, in one sum of mostly zeros."""
        size = len(values)
        slots = [0.0] * (size * self.num_ranks)
        slots[self.rank * size : (self.rank + 1) * size] = values
        sums = self.exchange(doing, slots)
        return [sums[start : start + size] for start in range(0, len(sums), size)]

    def from_first(self, value: int) -> int:
        """Returns the first rank's number on every rank."""
        return self.sum([value if self.is_first else 0], "number of the first rank")[0]

    def barrier(self, doing: str = "barrier") -> None:
        """Waits for every rank."""
        self.exchange(doing)

    def gather(self, value: Any) -> list[Any]:
        """Returns every rank's value, first rank first."""
        self.exchange("gather")
        return self._all_gather(value)

    def _all_gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(values, value, group=self.group)
        return values

    def raise_together(self, problem: str | None) -> None:
        """Raises `AgreedError` on every rank if any of them has a problem."""
        if not self.sum([problem is not None], "problems")[0]:
            return
        problems = [(rank, text) for rank, text in enumerate(self.gather(problem)) if text]
        rank, text = problems[0]
        raise AgreedError(text if rank == 0 else f"rank {rank}: {text}")


def fingerprint(view: Mapping[str, object], num_values: int) -> Tensor:
    """Returns the words of a digest, each with its square: ``[2 * WORDS]`` doubles."""
    text = "\n".join(f"{name}={value}" for name, value in view.items())
    digest = hashlib.sha256(f"{num_values}\n{text}".encode()).digest()
    size = WORD_BITS // 8
    words = [int.from_bytes(digest[i * size : (i + 1) * size]) for i in range(WORDS)]
    return torch.tensor([power for word in words for power in (word, word**2)]).double()


def is_common(sums: Tensor, num_ranks: int) -> bool:
    """Whether the summed fingerprints were all the same one.

    Of n numbers, n times the sum of squares equals the square of the sum only if they are equal:
    no combination of views can cancel out, and every rank comes to the same verdict.
    """
    numbers = [int(value) for value in sums.tolist()]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return all(num_ranks * squares == total**2 for total, squares in pairs)


def table(views: Sequence[Mapping[str, str]]) -> str:
    """Draws one line per rank with the facts in which the ranks differ."""
    names = {name: None for view in views for name in view}
    differing = [name for name in names if len({view.get(name) for view in views}) > 1]
    rows = [["rank", *differing]]
    rows += [
        [str(rank), *(view.get(name, "-") for name in differing)] for rank, view in enumerate(views)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"  {line.rstrip()}" for line in lines)
