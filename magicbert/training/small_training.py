"""One small training in one process: the supernet's step without an engine, ranks or launcher.

A study trains hundreds of small models, each for a minute or less; starting DeepSpeed for each of
them would take as long again. The step is the same one: a test holds its weights to the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.alignment import alignment_backend
from magicbert.supernet.anchor import ScorePaths
from magicbert.supernet.scoring import Score
from magicbert.supernet.shared_prefix import SharedPrefix
from magicbert.supernet.supernet import Supernet
from magicbert.training.dropout_seed import seed_dropout
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.parts import Parts, Sections
from magicbert.training.path_sparse.groups import split_by_decay
from magicbert.training.schedule import learning_rate

# A backward costs two forwards.
FORWARDS_PER_STEP = 3
ForwardFlops = Callable[[Architecture], float]


@dataclass(frozen=True)
class Standing:
    """Where a small training stands.

    Attributes:
        step: optimizer steps made.
        path: the path of the last step; ``None`` before the first.
        flops: spent so far: steps, references of the alignment and scores of the anchor.
        replaced: how often the anchor was replaced.
    """

    step: int = 0
    path: Architecture | None = None
    flops: float = 0.0
    replaced: int = 0


class SmallTraining:
    """Trains a supernet, or a space of one architecture, step by step.

    Operators that were not sampled keep ``grad=None``, so AdamW leaves them, their moments and
    their counters alone: the engine's path-sparse policy.

    Args:
        supernet: with its initial weights, on the device to train on.
        parts: losses, batches and paths, as the training loop takes them; no probe is run.
        sections: configuration; fp32, AdamW and one rank, whatever it says about them.
        forward_flops: of one row along a path, head included.

    Raises:
        UserError: the update rule or its policy is one that only the engine has.
    """

    def __init__(
        self,
        supernet: Supernet,
        parts: Parts,
        sections: Sections,
        forward_flops: ForwardFlops,
    ) -> None:
        optimizer = sections.optimizer
        if (optimizer.name, optimizer.policy) != ("adamw", "path-sparse"):
            raise UserError(
                f"optimizer: a small training knows adamw with policy path-sparse, got "
                f"{optimizer.name} with {optimizer.policy}"
            )
        self.supernet, self.parts, self.sections = supernet, parts, sections
        self.forward_flops = forward_flops
        self.device = next(supernet.parameters()).device
        backend = alignment_backend(sections.training.backend, self.device)
        self.module = TrainingModule(supernet, parts.objective, sections.alignment, backend)
        self.module.train()
        self.parameters = [p for p in supernet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            split_by_decay("all", supernet.named_parameters(), optimizer.weight_decay),
            lr=optimizer.learning_rate,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            fused=True,
        )
        self.few = parts.source.dev_batches(sections.alignment.num_dev_batches)
        self.standing = Standing()

    def advance(self) -> Tensor:
        """Makes one step; returns the task loss, detached and still on the device."""
        plan, batches = self.begin()
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches):
            seed_dropout(self.sections.training.seed, plan.step, number)
            loss, task, *_ = self.module(batch.to(self.device), plan)
            loss.backward()
            total += task
        self.finish(plan)
        return total

    def begin(self) -> tuple[StepPlan, list[Any]]:
        """Returns the next step's plan and its micro-batches; nothing changes yet."""
        step = self.standing.step
        path = self.parts.sampler.next(step, self.standing.path)
        batches = self.parts.source.step_batches(step, 0, 1)
        return self.plan(step, path, batches), batches

    def finish(self, plan: StepPlan) -> None:
        """Updates the weights by the gradients that they have, and makes the step count."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.sections.optimizer, plan.step, self.sections.training.num_steps
            )
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.account(plan)
        self.update_anchor(plan.step, plan.architecture, self.accuracies)

    def plan(self, step: int, path: Architecture, batches: list[Any]) -> StepPlan:
        """Returns what all micro-batches of a step share."""
        objective, anchors = self.parts.objective, self.parts.anchors
        return StepPlan(
            step=step,
            architecture=path,
            anchor=anchors.anchor if anchors else None,
            count=sum(objective.count(batch) for batch in batches),
            num_positions=sum(objective.num_tokens(batch) for batch in batches),
            children=anchors.children(step, path) if anchors else (),
            num_auxiliary=sum(objective.num_auxiliary(batch) for batch in batches),
        )

    def clip(self) -> None:
        """Scales the gradients down to the largest norm allowed."""
        if self.sections.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(
                [p for p in self.parameters if p.grad is not None],
                self.sections.optimizer.clip_norm,
            )

    def account(self, plan: StepPlan) -> None:
        """Moves the position one step on and counts what the step cost."""
        rows = self.sections.training.rows_per_step
        own = FORWARDS_PER_STEP * self.forward_flops(plan.architecture)
        references = sum(self.forward_flops(path) for path in plan.references)
        self.standing = replace(
            self.standing,
            step=plan.step + 1,
            path=plan.architecture,
            flops=self.standing.flops + rows * (own + references),
        )

    def update_anchor(self, step: int, path: Architecture, score: ScorePaths) -> None:
        """Lets the policy compare the anchor with the path just trained."""
        if self.parts.anchors is None:
            return
        event = self.parts.anchors.update(step, path, score)
        if event is not None and event.replaced:
            self.standing = replace(self.standing, replaced=self.standing.replaced + 1)

    def accuracies(self, paths: Collection[Architecture]) -> dict[Architecture, float]:
        """Scores paths for the anchor policy; counts what they would cost one by one."""
        rows = self.sections.training.rows_per_micro_batch * len(self.few)
        spent = self.standing.flops + rows * sum(map(self.forward_flops, set(paths)))
        self.standing = replace(self.standing, flops=spent)
        return {path: score.accuracy for path, score in self.scores(paths, self.few).items()}

    def scores(
        self, paths: Collection[Architecture], batches: Sequence[Any]
    ) -> dict[Architecture, Score]:
        """Scores paths with the weights as they are, without dropout."""
        return SharedPrefix(self.supernet, self.parts.objective, batches).totals(paths)

    def score(self, path: Architecture, batches: Sequence[Any]) -> Score:
        """Scores one path."""
        return self.scores((path,), batches)[path]

    def save(self, file: Path) -> None:
        """Writes everything that `restore` needs to go on with the very same steps."""
        standing, anchors = self.standing, self.parts.anchors
        state = {
            "step": standing.step,
            "path": None if standing.path is None else str(standing.path),
            "flops": standing.flops,
            "replaced": standing.replaced,
            "anchors": anchors.state() if anchors else {},
            "weights": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = file.with_name(file.name + ".partial")
        torch.save(state, partial)
        partial.replace(file)

    def restore(self, file: Path) -> None:
        """Goes on where `save` was called.

        Raises:
            UserError: the file does not hold such a state.
        """
        try:
            state: Mapping[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
            self.supernet.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(dict(state["optimizer"]))
            path = state["path"]
            self.standing = Standing(
                int(state["step"]),
                None if path is None else Architecture.parse(path),
                float(state["flops"]),
                int(state["replaced"]),
            )
            if self.parts.anchors:
                self.parts.anchors.restore(state["anchors"])
        except Exception as error:  # of torn bytes, the unpickler raises nearly every kind
            raise UserError(f"{file}: no state of this training ({error}); delete it") from error


def check_finite(loss: float, step: int, what: str) -> float:
    """Returns a loss that was read off the device.

    Raises:
        UserError: it is not finite: the training diverged.
    """
    if not math.isfinite(loss):
        raise UserError(
            f"{what}: the loss is {loss} at step {step}; the training diverged. Take a lower "
            "optimizer.learning_rate or a longer warm-up"
        )
    return loss
