"""All cases of ``bench kernels``, the most telling size of every operation first."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from magicbert_kernels.backend import resolve_backend

from magicbert.bench.kernels.cases import (
    alignment_loss,
    bias_gelu,
    depthwise_convolution,
    gelu_norm,
    linear_cross_entropy,
    mixed_layer,
    mixed_operators,
    packed_convolution,
    residual_norm,
)
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Direction, operation_trial
from magicbert.bench.kernels.sizes import sizes
from magicbert.bench.kernels.tuning import tune
from magicbert.bench.registry import OWN, Case, Trial
from magicbert.bench.suite import Suite, chosen_device
from magicbert.config.roots import BenchConfig
from magicbert.errors import UserError

FAMILIES = (
    depthwise_convolution.FAMILY,
    residual_norm.FAMILY,
    alignment_loss.FAMILY,
    bias_gelu.FAMILY,
    linear_cross_entropy.FAMILY,
    packed_convolution.FAMILY,
    gelu_norm.FAMILY,
    mixed_operators.FAMILY,
    mixed_layer.FAMILY,
)


def kernel_suite(config: BenchConfig) -> Suite:
    """Returns every case that the configuration asks for.

    Raises:
        UserError: it asks for none, or for what is not there.
    """
    device = chosen_device(config.measure.device)
    cases = list(kernel_cases(config, device))
    if not cases:
        names = ", ".join(family.name for family in FAMILIES)
        raise UserError(f"kernels.cases: {list(config.kernels.cases)} matches none of {names}")
    setting = {"seed": config.measure.seed, "peers": config.measure.peers}
    return Suite("kernels", cases, device, config.measure, setting)


def tune_kernels(config: BenchConfig) -> None:
    """Searches launch settings on the GPU for the sizes that are measured; see `tuning`."""
    device = chosen_device(config.measure.device)
    backend = resolve_backend("auto", device)
    places = [
        Place(size, device, backend, config.kernels) for size in sizes(config.kernels, device)
    ]
    tune(list(wanted(config.kernels.cases)), places, config.measure.seed)


def kernel_cases(config: BenchConfig, device: torch.device) -> Iterator[Case]:
    """Yields the cases: sizes outside, so that a run that is cut has every operation."""
    backend = resolve_backend("auto", device)
    for size in sizes(config.kernels, device):
        place = Place(size, device, backend, config.kernels)
        for family in wanted(config.kernels.cases):
            for direction in family.directions:
                yield family_case(family, direction, place, config)


def wanted(parts: tuple[str, ...]) -> Iterator[Family]:
    """Yields the families whose names hold one of the parts; all without parts."""
    for family in FAMILIES:
        if not parts or any(part in family.name for part in parts):
            yield family


def family_case(family: Family, direction: Direction, place: Place, config: BenchConfig) -> Case:
    """Returns the case of one direction."""

    def build(device: torch.device) -> Trial:
        rivals = family.rivals(place)
        if not config.measure.peers:
            rivals = {OWN: rivals[OWN]}
        operation = family.operation(place)
        return operation_trial(operation, direction, rivals, device, config.measure.seed)

    return Case(f"{family.name}, {direction}", place.size.variant, build, family.unit)
