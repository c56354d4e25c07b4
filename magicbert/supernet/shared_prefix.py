"""Scores paths together: whatever they begin with alike is computed once for every batch.

The tree of their prefixes is walked depth first, so that one hidden state per layer is held besides
those kept for later calls. Where one batch is too small to fill the device, prefixes of one depth
that go on with the same operator can be stacked and take it in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.supernet.prefix_cache import PrefixCache
from magicbert.supernet.prefixes import Branch
from magicbert.supernet.scoring import Score, dropout_off, score_sums
from magicbert.supernet.supernet import Supernet, SupernetOutput


@dataclass(frozen=True, slots=True)
class Reached:
    """A prefix that was run.

    Attributes:
        branch: the prefix with the paths that go on from it.
        hidden: what its last operator returned, ``[rows, ...]``.
    """

    branch: Branch
    hidden: Tensor


@dataclass(frozen=True)
class Walk:
    """The way through the tree on one batch.

    Attributes:
        supernet: in evaluation mode.
        context: of the batch, for the operators.
        cache: hidden states of former walks.
        number: of the batch.
        most_stacked: prefixes that take an operator in one call at most.
        on_path: told of every whole path and its last hidden state.
    """

    supernet: Supernet
    context: Any
    cache: PrefixCache
    number: int
    most_stacked: int
    on_path: Callable[[Architecture, Tensor], None]
    _stacked_contexts: dict[int, Any] = field(default_factory=dict)

    def go_on(self, reached: Sequence[Reached]) -> None:
        """Walks everything behind some prefixes of one depth."""
        if reached[0].branch.is_leaf:
            for one in reached:
                self.on_path(one.branch.paths[0], one.hidden)
            return
        steps = [(child, one.hidden) for one in reached for child in one.branch.children()]
        steps.sort(key=lambda step: step[0].prefix[-1])
        for start in range(0, len(steps), self.most_stacked):
            self.visit(steps[start : start + self.most_stacked])

    def visit(self, steps: Sequence[tuple[Branch, Tensor]]) -> None:
        """Takes some steps, walks everything behind them, then keeps what was reached.

        A prefix counts as used until the last path behind it is done: it is given up after all
        that it leads to, and what is on the walk's way is not among what is kept.
        """
        reached = list(self.take(steps))
        self.go_on(reached)
        for one in reached:
            if not one.branch.is_leaf:
                self.cache.put(self.number, one.branch.prefix, one.hidden)

    def take(self, steps: Sequence[tuple[Branch, Tensor]]) -> Iterator[Reached]:
        """Yields where steps lead: what was kept, then operator by operator what was not."""
        unknown = []
        for branch, hidden in steps:
            kept = self.cache.take(self.number, branch.prefix)
            if kept is None:
                unknown.append((branch, hidden))
            else:
                yield Reached(branch, kept)
        for name, group in groupby(unknown, key=lambda step: step[0].prefix[-1]):
            branches, inputs = zip(*group, strict=True)
            outputs = self.run(branches[0].depth - 1, name, inputs)
            yield from map(Reached, branches, outputs)

    def run(self, layer: int, name: str, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs one operator on the hidden states of one or several prefixes."""
        operator, size = self.supernet.operator(layer, name), len(inputs)
        if size == 1:
            return (operator(inputs[0], self.context),)
        if size not in self._stacked_contexts:
            rows = torch.arange(len(inputs[0]), device=inputs[0].device).repeat(size)
            self._stacked_contexts[size] = self.supernet.select_rows(self.context, rows)
        stacked: Tensor = operator(torch.cat(list(inputs)), self._stacked_contexts[size])
        return stacked.chunk(size)


class SharedPrefix:
    """Scores sets of paths on fixed batches with weights that stay as they are.

    The losses are those of the paths run one by one: bit for bit where nothing is stacked.

    Args:
        supernet: its device is where the batches are moved to, and where they stay.
        objective: must report ``correct``.
        batches: fixed batches of the held-out split.
        max_bytes: of hidden states: those kept from call to call, and those on the walk's way
            (one per layer, times ``most_stacked``). A walk of one path at a time is made even if
            its way alone is more.
        most_stacked: prefixes that take an operator in one call at most; fewer where
            half of ``max_bytes`` does not hold so many.

    Attributes:
        cache: the hidden states that are kept.
    """

    def __init__(
        self,
        supernet: Supernet,
        objective: Objective,
        batches: Sequence[Any],
        *,
        max_bytes: int = 0,
        most_stacked: int = 1,
    ) -> None:
        self.supernet = supernet
        self.objective = objective
        self.batches = batches
        self.max_bytes = max_bytes
        self.most_stacked = most_stacked
        self.cache = PrefixCache()
        self.device = next(supernet.parameters()).device
        self._prepared: dict[int, Any] = {}

    def __call__(
        self, architectures: Collection[Architecture], numbers: range | None = None
    ) -> dict[Architecture, tuple[Score, ...]]:
        """Returns the score of every path on every batch; they leave the device once, at the end.

        Args:
            architectures: the paths.
            numbers: of the batches to run; ``None`` = all.

        Raises:
            UserError: a path does not fit the space.
        """
        for architecture in architectures:
            self.supernet.space.check(architecture)
        root = Branch.whole(tuple(architectures))
        numbers = range(len(self.batches)) if numbers is None else numbers
        if not root.paths or not numbers:
            return dict.fromkeys(root.paths, ())
        with dropout_off(self.supernet, root.paths), torch.no_grad():
            sums, counts = zip(
                *(self.run_batch(number, root, numbers.stop) for number in numbers), strict=True
            )
        values = torch.stack(sums, dim=1).tolist()
        return {
            path: tuple(
                Score(loss_sum, round(correct), count, tuple(logged))
                for (loss_sum, correct, *logged), count in zip(by_batch, counts, strict=True)
            )
            for path, by_batch in zip(root.paths, values, strict=True)
        }

    def totals(self, architectures: Collection[Architecture]) -> dict[Architecture, Score]:
        """Returns the score of every path on all batches together."""
        found = self(architectures)
        return {path: sum(scores, start=Score(0.0, 0, 0)) for path, scores in found.items()}

    def run_batch(self, number: int, root: Branch, num_batches: int) -> tuple[Tensor, int]:
        """Returns the sums ``[paths, ...]`` of one batch and how many terms they are of.

        Args:
            number: of the batch.
            root: of the tree of paths.
            num_batches: how many share the memory.
        """
        batch = self.prepared(number)
        hidden, context = self.supernet.enter(batch)
        valid = self.supernet.valid_positions(context)
        found: dict[Architecture, tuple[Tensor, int]] = {}

        def on_path(path: Architecture, last: Tensor) -> None:
            # What the loss was read off is let go: the next path needs the room.
            output = SupernetOutput(last, (), valid)
            loss = self.objective.read_loss(self.supernet, batch, output)
            found[path] = score_sums(self.objective, loss), loss.count

        most_stacked = self.divide_memory(hidden.nbytes * (len(root.paths[0]) + 1), num_batches)
        walk = Walk(self.supernet, context, self.cache, number, most_stacked, on_path)
        walk.go_on([Reached(root, hidden)])
        sums, counts = zip(*(found[path] for path in root.paths), strict=True)
        return torch.stack(sums), counts[0]

    def divide_memory(self, way_bytes: int, num_batches: int) -> int:
        """Leaves the cache what the walk does not need; returns how many prefixes are stacked.

        Args:
            way_bytes: of the hidden states on the way to one path.
            num_batches: how many share the memory.
        """
        most_stacked = min(self.most_stacked, max(self.max_bytes // 2 // way_bytes, 1))
        self.cache.divide(num_batches, max(self.max_bytes - most_stacked * way_bytes, 0))
        return most_stacked

    def prepared(self, number: int) -> Any:
        """Returns a batch as paths are run on it; it is made ready once."""
        if number not in self._prepared:
            batch = self.batches[number].to(self.device)
            self._prepared[number] = self.objective.prepare(self.supernet, batch)
        return self._prepared[number]
