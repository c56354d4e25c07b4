"""All pairwise cosines of 16 gradients: the Gram matrix against one cosine per pair."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.interference.gram import GramMatrix

NUM_GRADIENTS = 16
# Tensors of an operator of four million parameters, the size of a feed-forward layer at width 768.
NUM_TENSORS, NUM_VALUES = 4, 1 << 20
# Sums of four million fp32 products: the peers add them up in one go.
ALLOWED = 1e-3


def gram_case(seed: int, *, peers: bool) -> Case:
    """Returns the case: 16 gradients of four tensors of 1,048,576 values."""

    def build(device: torch.device) -> Trial:
        return GramTrial(seed, device).trial(peers=peers)

    variant: dict[str, int | str] = {
        "gradients": NUM_GRADIENTS, "parameters": NUM_TENSORS * NUM_VALUES,
    }  # fmt: skip
    return Case("cosines of gradients", variant, build, is_replayable=False)


class GramTrial:
    """Builds who computes the ``[16, 16]`` cosines.

    Args:
        seed: of the gradients, which share a direction so that cosines are far from 0.
        device: where they are.
        num_values: per tensor.
    """

    def __init__(self, seed: int, device: torch.device, num_values: int = NUM_VALUES) -> None:
        generator = torch.Generator(device).manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        self.tensors = [
            drawn(NUM_GRADIENTS, num_values) + drawn(1, num_values) for _ in range(NUM_TENSORS)
        ]

    def trial(self, *, peers: bool) -> Trial:
        """Returns everyone; the floor is to read every gradient once."""
        lineup = Lineup()
        lineup.add(OWN, lambda: self.gram)
        if peers:
            lineup.add("cosine_similarity, pair by pair", self.pairwise)
            lineup.add("one product of whole gradients", self.stacked)
        numel = sum(tensor.numel() for tensor in self.tensors)
        return Trial(
            lineup=lineup, judge=self.verdict, floor=Floor(bytes=4 * numel), units=4 * numel
        )

    def gram(self, index: int) -> Tensor:
        """Adds up tensor by tensor: no gradient is ever whole."""
        matrix = GramMatrix(NUM_GRADIENTS)
        for tensor in self.tensors:
            matrix.add(tensor)
        return matrix.cosines()

    def pairwise(self) -> Callable[[int], Tensor]:
        """Returns a call on whole gradients, each pair once, as published analyses do it."""
        whole = torch.cat(self.tensors, 1)

        def call(index: int) -> Tensor:
            cosines = torch.eye(NUM_GRADIENTS)
            for i, j in itertools.combinations(range(NUM_GRADIENTS), 2):
                cosines[i, j] = cosines[j, i] = F.cosine_similarity(whole[i], whole[j], dim=0)
            return cosines

        return call

    def stacked(self) -> Callable[[int], Tensor]:
        """Returns a call that normalises whole gradients and multiplies them once."""
        whole = torch.cat(self.tensors, 1)

        def call(index: int) -> Tensor:
            unit = F.normalize(whole, dim=1)
            return unit @ unit.T

        return call

    def verdict(self, contender: Contender) -> Verdict:
        """Compares with fp64."""
        whole = F.normalize(torch.cat(self.tensors, 1).double(), dim=1)
        error = contender.call(0).double().cpu() - (whole @ whole.T).cpu()
        return Verdict(float(error.abs().max()), ALLOWED)
