"""Weights before they are saved, and weights that every rank must hold alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.training.ranks import DisagreementError, Ranks

# Sums of words modulo 2**52 are exact in the doubles of `Ranks`; any single flipped bit shows.
MODULUS = 2**52
WORD = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def masters_not_finite(optimizer: Any) -> list[str]:
    """Returns the groups whose fp32 masters on this rank hold a number that is not finite.

    Args:
        optimizer: one of the path-sparse ones.
    """
    masters = [master.detach() for master in optimizer.masters if master.numel()]
    if not masters or bool(torch.isfinite(torch.stack(torch._foreach_norm(masters))).all()):
        return []
    named = zip(optimizer.param_groups, optimizer.masters, strict=True)
    return [str(group["name"]) for group, master in named if not torch.isfinite(master).all()]


@torch.no_grad()
def check_replicas(module: nn.Module, optimizer: Any, ranks: Ranks, step: int) -> None:
    """Compares the weights that every rank holds whole (ZeRO stages 0 to 2).

    Raises:
        DisagreementError: naming the ranks whose weights differ from their fp32 masters, or, if the
            masters differ too, every rank's checksum.
    """
    sums = checksums(module)
    total = sum(number * word for number, word in enumerate(sums.values(), 1)) % MODULUS
    try:
        ranks.exchange("replicas", facts={"step": step, "weights": total})
    except DisagreementError:
        raise DisagreementError(describe(module, optimizer, ranks, step, sums)) from None


def checksums(module: nn.Module) -> dict[str, int]:
    """Returns one sum of machine words per parameter."""
    named = [(n, p.data) for n, p in module.named_parameters() if p.numel()]
    words = [p.contiguous().view(WORD[p.element_size()]) for _, p in named]
    sums = torch.stack([word.sum(dtype=torch.int64) for word in words]).tolist()
    return {name: int(value) % MODULUS for (name, _), value in zip(named, sums, strict=True)}


def describe(
    module: nn.Module, optimizer: Any, ranks: Ranks, step: int, sums: dict[str, int]
) -> str:
    """Says which parameters differ, and on which ranks they are not what the masters say."""
    views = ranks.gather(sums)
    differing = [name for name in sums if len({view[name] for view in views}) > 1]
    wrong = ranks.gather(not_like_masters(module, optimizer, set(differing)))
    lines = [
        f"  rank {rank}: {', '.join(names[:4])} is not what its fp32 master gives"
        for rank, names in enumerate(wrong)
        if names
    ]
    lines = lines or outvoted(views)
    if not lines:
        lines = [
            f"  rank {rank}: checksum {view[name]:013x} of {name}"
            for rank, view in enumerate(views)
            for name in differing[:2]
        ]
    return "\n".join(
        [
            f"before step {step}, the weights of the ranks differ in {', '.join(differing[:4])}:",
            *lines,
        ]
    )


def outvoted(views: Sequence[dict[str, int]]) -> list[str]:
    """Names the ranks that differ from what more than half of all ranks hold."""
    for view in views:
        others = [rank for rank, other in enumerate(views) if other != view]
        if 2 * len(others) < len(views):
            return [
                f"  rank {rank}: {', '.join([n for n in view if views[rank][n] != view[n]][:4])} "
                f"is not what {len(views) - len(others)} other ranks hold"
                for rank in others
            ]
    return []


def not_like_masters(module: nn.Module, optimizer: Any, names: set[str]) -> list[str]:
    """Returns the parameters, of those named, that are not their fp32 masters cast down."""
    masters: dict[Any, Tensor] = optimizer.gather_masters()
    return list(_differing(module, masters, names))


def _differing(module: nn.Module, masters: dict[Any, Tensor], names: set[str]) -> Iterator[str]:
    for name, parameter in module.named_parameters():
        master = masters.get(parameter)
        if name in names and master is not None:
            given = parameter.data.flatten().view(WORD[parameter.element_size()])
            right = master.to(parameter.dtype).flatten().view(WORD[parameter.element_size()])
            if not torch.equal(given, right.to(given.device)):
                yield name
