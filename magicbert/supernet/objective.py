"""What a loss is to the core: a sum over terms whose number is known before the forward.

An objective says apart what it does once for a batch, whatever the path (`prepare`), and what it
reads off a path's output (`read_loss`). What lies between them is the supernet's: paths that begin
alike can share it, see `magicbert.supernet.shared_prefix`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from magicbert.space import Architecture
from magicbert.supernet.supernet import Supernet, SupernetOutput


@dataclass(frozen=True)
class LossOutput:
    """The loss of one micro-batch, not yet divided by anything.

    Attributes:
        loss_sum: scalar fp32 sum over the terms, with gradient; what paths are scored by.
        count: number of terms; the loop divides by the sum over ranks and micro-batches.
        metrics: detached sums over the same terms; must hold ``correct`` (terms predicted right),
            and what the objective lists in ``logged``.
        output: what the supernet computed, for the alignment loss.
        weight: of this loss in what is trained.
        auxiliary: sum of a second loss that is trained along, weighted already, with gradient;
            it has terms of its own, see `Objective.num_auxiliary`. ``None`` = there is none.
    """

    loss_sum: Tensor
    count: int
    output: SupernetOutput
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float = 1.0
    auxiliary: Tensor | None = None


class Objective(ABC):
    """A task loss over a supernet path; the tenants bring them (MLM, RTD).

    Attributes:
        logged: metrics of `LossOutput` whose sums `rates` turns into what is logged.
    """

    logged: tuple[str, ...] = ()

    @abstractmethod
    def count(self, batch: Any) -> int:
        """Returns the number of loss terms of a batch, without running the model."""

    @abstractmethod
    def num_tokens(self, batch: Any) -> int:
        """Returns the number of valid positions of a batch (for throughput and alignment)."""

    def num_auxiliary(self, batch: Any) -> int:
        """Returns the number of terms of the auxiliary loss of a batch; here there is none."""
        return 0

    def rates(self, sums: Mapping[str, float]) -> dict[str, float | None]:
        """Returns what to log of the sums of the ``logged`` metrics; ``None`` = not defined."""
        return {}

    def prepare(self, supernet: Supernet, batch: Any) -> Any:
        """Returns the batch that paths run on: here the batch itself.

        An objective overrides it if it changes the batch in a way that no path has a say in, such
        as replacing tokens by a generator's. Without gradients it must give the same every time.
        """
        return batch

    @abstractmethod
    def read_loss(self, supernet: Supernet, batch: Any, output: SupernetOutput) -> LossOutput:
        """Returns the loss of a path that was run.

        Args:
            supernet: whose head to use.
            batch: what `prepare` returned.
            output: of the path; its block outputs need not be there.
        """

    def __call__(
        self,
        supernet: Supernet,
        batch: Any,
        architecture: Architecture,
        block_ends: Sequence[int] = (),
    ) -> LossOutput:
        """Runs the path and returns its loss; called inside the engine's forward."""
        prepared = self.prepare(supernet, batch)
        return self.read_loss(supernet, prepared, supernet(prepared, architecture, block_ends))


class BatchSource(Protocol):
    """Batches as a pure function of the step; the data package and tests bring them."""

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[Any]:
        """Returns this rank's micro-batches of one optimizer step (step counts from 0)."""
        ...

    def dev_batches(self, num_batches: int) -> list[Any]:
        """Returns the first ``num_batches`` fixed micro-batches of the held-out split."""
        ...
