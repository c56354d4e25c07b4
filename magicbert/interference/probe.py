"""Interference while training: the gradients of two consecutive paths where they share operators.

MAGIC-T's claim is about consecutive steps: the fewer operators change from one path to the next,
the closer are the gradients that both send into what they share (MAGIC 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magicbert.interference.gram import GramMatrix
from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.supernet.scoring import dropout_off
from magicbert.supernet.supernet import Supernet


@dataclass(frozen=True)
class InterferenceProbe:
    """Compares two paths on one batch with the weights of the moment; changes nothing.

    It costs two forwards and two backwards of one micro-batch and, while it runs, two gradients
    of what the paths share.

    Attributes:
        objective: the task loss.
    """

    objective: Objective

    def __call__(
        self, supernet: Supernet, batch: Any, path: Architecture, previous: Architecture
    ) -> dict[str, float | int | None]:
        """Returns the cosine over all shared operators together and how many these are.

        The cosine is ``None`` where the paths share no operator or a gradient is zero or not
        finite. Embeddings and heads, which all paths share, are left out.
        """
        layers = [i for i, (a, b) in enumerate(zip(path, previous, strict=True)) if a == b]
        shared = [p for i in layers for p in supernet.operator(i, path[i]).parameters()]
        if not shared:
            return {"cosine": None, "num_shared": 0}
        gram = GramMatrix(2)
        with dropout_off(supernet, (path, previous)):
            ours = self.gradients(supernet, batch, path, shared)
            theirs = self.gradients(supernet, batch, previous, shared)
        for one, other in zip(ours, theirs, strict=True):
            gram.add(torch.stack([one.flatten(), other.flatten()]))
        cosine = float(gram.cosines()[0, 1])
        return {"cosine": cosine if cosine == cosine else None, "num_shared": len(layers)}

    def gradients(
        self, supernet: Supernet, batch: Any, path: Architecture, parameters: list[Any]
    ) -> tuple[Tensor, ...]:
        """Returns the gradients of the path's mean loss; no parameter's ``grad`` is touched."""
        result = self.objective(supernet, batch, path)
        return torch.autograd.grad(result.loss_sum / max(result.count, 1), parameters)
