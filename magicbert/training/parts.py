"""What the loop is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from magicbert.config.sections import AlignmentSection, OptimizerSection, TrainingSection
from magicbert.space import Architecture
from magicbert.supernet.anchor import AnchorPolicy
from magicbert.supernet.objective import BatchSource, Objective
from magicbert.supernet.sampling import PathSampler
from magicbert.supernet.scoring import Score
from magicbert.supernet.supernet import Supernet
from magicbert.training.position import TrainState

Probe = Callable[[Supernet, Any, Architecture, Architecture], Mapping[str, float | int | None]]
Ending = Literal["finished", "out of time", "interrupted"]


@dataclass(frozen=True)
class Parts:
    """What a tenant and a stage bring to the loop.

    Attributes:
        objective: the task loss.
        source: batches as a function of the step.
        sampler: the path of a step.
        anchors: MAGIC-A's policy; ``None`` = no alignment.
        probe: measures on a dev batch how the sampled path and the one before it interfere;
            ``None`` = nothing is measured.
    """

    objective: Objective
    source: BatchSource
    sampler: PathSampler
    anchors: AnchorPolicy | None
    probe: Probe | None = None


@dataclass(frozen=True)
class Sections:
    """The sections of the configuration that the loop reads."""

    training: TrainingSection
    optimizer: OptimizerSection
    alignment: AlignmentSection


@dataclass(frozen=True)
class Outcome:
    """How this start of the run ended.

    Attributes:
        ending: whether all steps were made, and if not, why not.
        state: the position reached.
        valid: scores on the held-out split; ``None`` if the run is not finished.
    """

    ending: Ending
    state: TrainState
    valid: Score | None
