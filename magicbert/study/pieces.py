"""Small trainings in pieces: they can be told to stop after any step and go on from there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from magicbert.faults import fault
from magicbert.records import write_text_atomically
from magicbert.training.small_training import SmallTraining, check_finite

Stop = Callable[[], bool]
# A piece that is killed loses no more than this.
SECONDS_BETWEEN_SAVES = 300.0
STATE, PROGRESS = "state.pt", "progress.json"


@dataclass
class Progress:
    """What a training has shown so far.

    Attributes:
        curve: (step, valid loss).
        seconds: of all pieces.
    """

    curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


class Cuttable(ABC):
    """Runs to its end, or to a stop after which another process goes on.

    Attributes:
        num_steps: number of its last step.
    """

    num_steps: int

    def run(self, stop: Stop) -> bool:
        """Trains; returns whether the last step is made. If not, the state is kept."""
        last = saved = time.monotonic()
        first_step = self.position
        while self.position < self.num_steps:
            now = time.monotonic()
            self.spend(now - last)
            last = now
            if stop():
                if self.position > first_step:
                    self.save()
                return False
            if now - saved > SECONDS_BETWEEN_SAVES:
                self.save()
                saved = now
            self.step()
        self.spend(time.monotonic() - last)
        return True

    @property
    @abstractmethod
    def position(self) -> int:
        """Steps made so far."""

    @abstractmethod
    def step(self) -> None:
        """Makes one step, and measures where a point of the curve is due."""

    @abstractmethod
    def save(self) -> None:
        """Writes the state, for another process to go on with."""

    @abstractmethod
    def spend(self, seconds: float) -> None:
        """Counts time that went by."""


class Pieces(Cuttable):
    """One training that can be cut.

    Args:
        folder: where the state lies between two pieces; made when it is needed.
        what: name of the training in messages.
        training: at its first step.
        num_steps: its last step.
        measure: valid loss with the weights as they are.
        num_points: measurements, spread evenly; the last is after the last step.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        training: SmallTraining,
        num_steps: int,
        measure: Callable[[], float],
        num_points: int,
    ) -> None:
        self.folder, self.what, self.training = folder, what, training
        self.num_steps, self.measure = num_steps, measure
        self.points = {round(num_steps * (i + 1) / num_points) for i in range(num_points)}
        self.progress = Progress()

    @property
    def position(self) -> int:
        """Steps made so far."""
        return self.training.standing.step

    def step(self) -> None:
        """Makes one step, and measures where a point of the curve is due."""
        self.training.advance()
        fault("study.step", step=self.position)
        if self.position in self.points:
            self.measure_point()

    def measure_point(self) -> None:
        """Adds a point to the curve.

        Raises:
            UserError: the training diverged.
        """
        loss = check_finite(self.measure(), self.position, self.what)
        self.progress.curve.append((self.position, loss))

    def spend(self, seconds: float) -> None:
        """Counts time that went by."""
        self.progress.seconds += seconds

    def save(self) -> None:
        """Writes the state; the curve first, which may run ahead of it but not lag behind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shown = {"curve": self.progress.curve, "seconds": self.progress.seconds}
        write_text_atomically(self.folder / PROGRESS, json.dumps(shown))
        self.training.save(self.folder / STATE)

    def resume(self) -> None:
        """Goes on from a kept state, if there is one.

        Raises:
            UserError: it is damaged.
        """
        if not (self.folder / STATE).is_file():
            return
        self.training.restore(self.folder / STATE)
        shown = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
        step = self.training.standing.step
        self.progress = Progress(
            [(int(at), float(loss)) for at, loss in shown["curve"] if at <= step],
            float(shown["seconds"]),
        )


def piece_folder(root: Path, key: str) -> Path:
    """Returns where the state of a unit lies; keys hold slashes and can be long."""
    return root / hashlib.sha256(key.encode()).hexdigest()[:16]


def forget_piece(root: Path, key: str) -> None:
    """Removes the state of a unit whose row is on the disk."""
    shutil.rmtree(piece_folder(root, key), ignore_errors=True)
