"""A whole layer of a supernet whose rows take convolutions of their own, products and all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, AbsentError, Floor
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.convolution import SeparableConvolution, StackedConvolution
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.supernet import BertSupernet
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.row_groups import LayerRows, group_rows

OPERATORS = ("conv3", "conv5", "conv7")
WIDEST = 7
# Two sub-layers; each reads and writes the hidden states in its depthwise convolution and in its
# product, and reads two and writes one around its norm.
PASSES = 2 * (2 + 2 + 3)


def operation(place: Place) -> Operation:
    """Returns the operation; it has no backward."""
    rows, length, width = place.size.shape
    floor = Floor(
        bytes=PASSES * place.size.pass_bytes,
        flops=4 * rows * length * width * width,
        matmul=(rows * length, width, width),
        dtype=place.size.dtype,
    )
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=Reference(place),
        differentiated=(),
        floors={"forward": floor},
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns hidden states."""
    generator = torch.Generator(device).manual_seed(seed)
    return {"hidden": torch.randn(size.shape, generator=generator, device=device).to(size.dtype)}


class Layer:
    """The layer with its weights, which are the same whoever computes it.

    Args:
        place: sizes and device.
        dtype: of the weights.
        backend: of the candidates.
    """

    def __init__(self, place: Place, dtype: torch.dtype, backend: str) -> None:
        num_rows, length, width = place.size.shape
        config = MagicBertConfig(
            vocab_size=1, hidden_size=width, max_position_embeddings=length, backend=backend
        )
        built = BertSupernet(SearchSpace.uniform(1, OPERATORS), config, seed=0)
        self.supernet = built.eval().to(place.device, dtype)
        self.segments = Segments.full(length, place.device)
        self.paths = [
            Architecture((OPERATORS[row * len(OPERATORS) // num_rows],)) for row in range(num_rows)
        ]

    @torch.no_grad()
    def rows(self, *, together: bool) -> LayerRows:
        """Returns the batch's rows, those of the convolutions in one group if the backend can."""
        device = self.segments.position_ids.device
        if together:
            return group_rows(self.paths, device, self.supernet.family)[0]
        return group_rows(self.paths, device)[0]

    def convolution(self, name: str) -> StackedConvolution:
        """Returns one of the candidates."""
        return cast(StackedConvolution, self.supernet.operator(0, name))


class Reference:
    """Every row by itself, in the type of the hidden states.

    Args:
        place: sizes and device.
    """

    def __init__(self, place: Place) -> None:
        self.layer = functools.cache(lambda dtype: Layer(place, dtype, "torch"))

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        """Returns the next hidden states."""
        layer = self.layer(hidden.dtype)
        outputs = [
            layer.convolution(path[0])(row[None], layer.segments)
            for path, row in zip(layer.paths, hidden, strict=True)
        ]
        return torch.cat(outputs)


class ByGroups:
    """What the supernet does with its rows.

    Args:
        layer: weights and paths.
        together: as the supernet groups them, else one group per candidate.
    """

    def __init__(self, layer: Layer, *, together: bool) -> None:
        self.layer = layer
        self.rows = layer.rows(together=together)

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        """Returns the next hidden states."""
        layer = self.layer
        return layer.supernet.run_rows(0, self.rows, hidden, layer.segments)


class GatheredWeights:
    """All rows at once in plain torch: narrow filters padded, every row with a copy of its weights.

    What `torch.vmap` over stacked candidates computes. The stacks are made beforehand.

    Args:
        layer: weights and paths.
    """

    def __init__(self, layer: Layer) -> None:
        candidates = [layer.convolution(name) for name in OPERATORS]
        parts = [[c.first for c in candidates], [c.second for c in candidates]]
        norms = [[c.first_norm for c in candidates], [c.second_norm for c in candidates]]
        self.filters = [torch.stack([widened_filter(p) for p in part]) for part in parts]
        self.filter_biases = [torch.stack([p.depthwise.bias for p in part]) for part in parts]
        self.matrices = [torch.stack([p.pointwise.weight.t() for p in part]) for part in parts]
        self.biases = [torch.stack([p.pointwise.bias for p in part]) for part in parts]
        self.norm_weights = [torch.stack([norm.weight for norm in part]) for part in norms]
        self.norm_biases = [torch.stack([norm.bias for norm in part]) for part in norms]
        self.epsilon = norms[0][0].eps
        numbers = [OPERATORS.index(path[0]) for path in layer.paths]
        self.ids = torch.tensor(numbers, device=self.biases[0].device)

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        """Returns the next hidden states."""
        length = hidden.shape[1]
        for number in range(2):
            seen = functional.pad(hidden, (0, 0, WIDEST // 2, WIDEST // 2))
            filters = self.filters[number][self.ids]
            mixed = self.filter_biases[number][self.ids, None]
            for tap in range(WIDEST):
                mixed = torch.addcmul(mixed, seen[:, tap : tap + length], filters[:, tap, None])
            biases = self.biases[number][self.ids, None]
            branch = torch.baddbmm(biases, mixed, self.matrices[number][self.ids])
            summed = hidden + functional.gelu(branch)
            normed = functional.layer_norm(summed, summed.shape[-1:], eps=self.epsilon)
            scale = self.norm_weights[number][self.ids, None]
            hidden = torch.addcmul(self.norm_biases[number][self.ids, None], normed, scale)
        return hidden


def widened_filter(part: SeparableConvolution) -> Tensor:
    """Returns the depthwise filter with zeros at taps that it does not have."""
    weight = part.depthwise.weight
    return functional.pad(weight, (0, 0) + ((WIDEST - len(weight)) // 2,) * 2)


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    layer = functools.cache(lambda: Layer(place, place.size.dtype, place.backend))

    def one_by_one() -> Function:
        if place.backend == "torch":
            raise AbsentError("it is what magicbert runs without Triton")
        return ByGroups(layer(), together=False)

    def compiled_one_by_one() -> Function:
        plain = ByGroups(Layer(place, place.size.dtype, "torch"), together=False)
        return compiled(plain, place.device)()

    return {
        OWN: lambda: ByGroups(layer(), together=True),
        "candidate by candidate": one_by_one,
        "row by row": lambda: Reference(place),
        "gathered weights": lambda: GatheredWeights(layer()),
        "torch.compile": compiled_one_by_one,
    }


# Its kernels are tuned by themselves, in `mixed_operators`.
FAMILY = Family("layer of mixed convolutions", ("forward",), operation, rivals, {})
