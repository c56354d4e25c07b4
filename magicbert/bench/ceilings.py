"""What the device can do at most, measured in the same turns as what is compared with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from magicbert.bench.registry import Contender, Floor

COPY, MATMUL = "copy", "matmul"
# A copy that no cache holds: 1 GiB on a GPU, 64 MiB (twice: read and written) on a CPU.
COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}
SQUARE = {"cuda": 8192, "cpu": 1024}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A contender that does nothing but move bytes, or nothing but multiply.

    Attributes:
        contender: takes turns with the others.
        amount: bytes moved, or floating-point operations, of one call.
    """

    contender: Contender
    amount: int


def ceilings(floor: Floor, device: torch.device) -> dict[str, Ceiling]:
    """Returns the ceilings that a floor needs, by name."""
    found = {}
    if floor.bytes:
        found[COPY] = copy_ceiling(device)
    if floor.flops:
        found[MATMUL] = matmul_ceiling(floor, device)
    return found


def copy_ceiling(device: torch.device) -> Ceiling:
    """Returns a copy between two buffers that stand for the whole trial."""
    size = COPIED.get(device.type, COPIED["cpu"])
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Ceiling(Contender(COPY, lambda index: target.copy_(source)), 2 * size)


def matmul_ceiling(floor: Floor, device: torch.device) -> Ceiling:
    """Returns one matrix product, of random numbers: a GPU multiplies zeros faster."""
    side = SQUARE.get(device.type, SQUARE["cpu"])
    m, k, n = floor.matmul or (side, side, side)
    left, right = (torch.randn(size, device=device).to(floor.dtype) for size in ((m, k), (k, n)))
    product = torch.empty(m, n, device=device, dtype=floor.dtype)
    call = Contender(MATMUL, lambda index: torch.mm(left, right, out=product))
    return Ceiling(call, 2 * m * k * n)


def floor_seconds(floor: Floor, rates: dict[str, float]) -> float:
    """Returns the least seconds: the longer of moving and computing, at the ceilings' rates."""
    moving = floor.bytes / rates[COPY] if floor.bytes else 0.0
    computing = floor.flops / rates[MATMUL] if floor.flops else 0.0
    return max(moving, computing)
