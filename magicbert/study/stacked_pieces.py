"""Small trainings side by side in one process; each has pieces and a row of its own.

The state of a stack is that of its members: another stack, or a process that trains one model at
a time, goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magicbert.errors import UserError
from magicbert.faults import fault
from magicbert.study.pieces import Cuttable, Pieces
from magicbert.study.rows import Row
from magicbert.study.units import AloneUnit, SupernetUnit
from magicbert.supernet.stacked_models import StackedModels
from magicbert.training.stacked_training import StackedTraining


@dataclass(frozen=True)
class StackRows:
    """What became of a stack.

    Attributes:
        rows: of the units that are done.
        is_over: whether no unit was told to stop.
        problem: why one of the units has no row, such as that it diverged; ``None`` = none did.
    """

    rows: tuple[tuple[AloneUnit | SupernetUnit, Row], ...]
    is_over: bool
    problem: UserError | None = None


class StackedPieces(Cuttable):
    """Trainings that can be cut, all at one step.

    A member that diverges computes on, which disturbs no other, and has no further points.

    Attributes:
        problems: of the members that diverged.

    Args:
        members: of equally many steps.
        models: made of their supernets as they are.
    """

    def __init__(self, members: Sequence[Pieces], models: StackedModels) -> None:
        self.members = members
        self.training = StackedTraining([member.training for member in members], models)
        self.num_steps = members[0].num_steps
        self.problems: dict[int, UserError] = {}

    @property
    def position(self) -> int:
        """Steps made so far."""
        return self.training.step

    def step(self) -> None:
        """Makes one step of each member, and measures where points of the curves are due."""
        self.training.advance()
        fault("study.step", step=self.position)
        if self.position in self.members[0].points:
            self.training.hand_back()
            for number in range(len(self.members)):
                self.measure_point(number)

    def measure_point(self, number: int) -> None:
        """Adds a point to the curve of a member that has not diverged."""
        if number in self.problems:
            return
        try:
            self.members[number].measure_point()
        except UserError as error:
            self.problems[number] = error

    def save(self) -> None:
        """Writes the state of each member."""
        self.training.hand_back()
        for member in self.members:
            member.save()

    def spend(self, seconds: float) -> None:
        """Counts time that went by, an equal share of it for each member."""
        for member in self.members:
            member.spend(seconds / len(self.members))
