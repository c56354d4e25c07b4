"""Figure 2 of MAGIC on a frozen supernet: matrices over one differing layer, curves over several.

One sample is a random context (the layers that are not under examination) on one fixed batch.
Samples are independent draws, so intervals come from resampling them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from magicbert.interference.children import (
    differing_in_layers,
    differing_in_one_layer,
    layers_around,
    with_operators,
)
from magicbert.interference.passage import (
    gradient_cosines,
    pass_through,
    state_cosines,
)
from magicbert.space import Architecture
from magicbert.space.randomness import keyed_generator
from magicbert.supernet.objective import Objective
from magicbert.supernet.scoring import dropout_off
from magicbert.supernet.supernet import Supernet

MEASURES = ("gradient", "input", "output")
Cosines = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Examination:
    """What is examined: a shared operator, on fixed batches, in random contexts.

    Attributes:
        supernet: frozen weights, on the device to compute on.
        objective: the task loss.
        batches: fixed batches on that device; context i runs on batch ``i mod len``.
        layer: index of the shared operator's layer, from 0.
        num_contexts: samples per figure.
        seed: of contexts and offsets.
    """

    supernet: Supernet
    objective: Objective
    batches: Sequence[Any]
    layer: int
    num_contexts: int
    seed: int

    def contexts(self, operator: str) -> Iterator[tuple[int, Architecture]]:
        """Yields the samples' numbers and contexts, the shared operator in its place."""
        space = self.supernet.space
        for number in range(self.num_contexts):
            drawn = space.sample(keyed_generator(self.seed, "interference", number))
            yield number, with_operators(drawn, {self.layer: operator})

    def cosines(self, number: int, children: Sequence[Architecture]) -> Cosines:
        """Returns the children's pairwise cosines ``[C, C]`` at the shared operator, by measure."""
        batch = self.batches[number % len(self.batches)]
        operator = self.supernet.operator(self.layer, children[0][self.layer])
        with dropout_off(self.supernet, children):
            passages = [
                pass_through(self.supernet, self.objective, batch, child, self.layer)
                for child in children
            ]
            found = {
                "gradient": gradient_cosines(operator, passages),
                "input": state_cosines([p.input for p in passages], passages[0].valid),
                "output": state_cosines([p.output for p in passages], passages[0].valid),
            }
        return {name: cosine.numpy() for name, cosine in found.items()}


def one_layer_matrices(examination: Examination, operator: str, differing: int) -> Cosines:
    """Returns ``[samples, C, C]`` by measure: children that differ in one layer (Figure 2a).

    Args:
        examination: what is examined.
        operator: the shared operator.
        differing: index of the layer in which the children differ.
    """
    space = examination.supernet.space
    samples = [
        examination.cosines(number, differing_in_one_layer(space, context, differing))
        for number, context in examination.contexts(operator)
    ]
    return {name: np.stack([sample[name] for sample in samples]) for name in MEASURES}


def several_layers_curve(
    examination: Examination, operator: str, most_layers: int
) -> dict[str, NDArray[np.float64]]:
    """Returns ``[samples, most_layers]`` by measure: means over pairs of children (Figure 2c).

    Column m - 1 is of children of which every two differ in each of the same m layers.

    Args:
        examination: what is examined.
        operator: the shared operator.
        most_layers: largest m, at most the number of other layers.
    """
    supernet = examination.supernet
    around = layers_around(supernet.space.num_layers, examination.layer)
    curves: dict[str, list[list[float]]] = {name: [] for name in MEASURES}
    for number, context in examination.contexts(operator):
        generator = keyed_generator(examination.seed, "interference-offsets", number)
        rows: dict[str, list[float]] = {name: [] for name in MEASURES}
        for m in range(1, most_layers + 1):
            children = differing_in_layers(supernet.space, context, around[:m], generator)
            for name, cosines in examination.cosines(number, children).items():
                rows[name].append(mean_of_pairs(cosines))
        for name in MEASURES:
            curves[name].append(rows[name])
    return {name: np.array(rows) for name, rows in curves.items()}


def mean_of_pairs(cosines: NDArray[np.float64]) -> float:
    """Returns the mean over pairs of different children of ``[C, C]``."""
    above = np.triu_indices(len(cosines), k=1)
    return float(np.mean(cosines[above]))


def device_batches(supernet: Supernet, batches: Sequence[Any]) -> list[Any]:
    """Returns the batches on the supernet's device."""
    device: torch.device = next(supernet.parameters()).device
    return [batch.to(device) for batch in batches]
