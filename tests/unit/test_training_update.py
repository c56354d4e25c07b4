"""The fused step over active groups: AdamW's numbers, clipping, and skipping on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from magicbert.training.path_sparse.adamw import SparseAdamW
from magicbert.training.path_sparse.lamb import SparseLamb
from magicbert.training.path_sparse.placement import Piece
from magicbert.training.path_sparse.policies import Policy
from magicbert.training.path_sparse.rules import UpdateRule
from magicbert.training.path_sparse.update import SparseUpdate

SIZES = (7, 5, 9)


def groups_of(values: list[Tensor]) -> list[dict[str, Any]]:
    decays = [0.1, 0.0, 0.1]
    return [
        {
            "params": [value.clone().requires_grad_()],
            "weight_decay": decay,
            "name": str(number),
            "is_matrix": decay > 0,
            "parameter_names": ["weight"],
        }
        for number, (value, decay) in enumerate(zip(values, decays, strict=True))
    ]


def build(
    clip_norm: float, kind: type[UpdateRule] = SparseAdamW, policy: Policy = "path-sparse"
) -> tuple[SparseUpdate, list[Tensor]]:
    torch.manual_seed(0)
    values = [torch.randn(size) for size in SIZES]
    rule = kind(groups_of(values), lr=0.01, betas=(0.9, 0.999), eps=1e-8, policy=policy)
    update = SparseUpdate(
        rule,
        clip_norm,
        process_group=None,
        pieces=lambda number: (Piece(0, 0, SIZES[number], 0),),
    )
    return update, values


@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
def test_steps_are_those_of_adamw(clip_norm: float, loss_scale: float) -> None:
    update, values = build(clip_norm)
    plain_groups = groups_of(values)
    plain = torch.optim.AdamW(plain_groups, lr=0.01, foreach=False)
    for active in ([0, 1, 2], [0, 2], [1], [0, 1]):
        gradients = [torch.randn_like(values[number]) for number in active]
        for number, gradient in zip(active, gradients, strict=True):
            plain_groups[number]["params"][0].grad = gradient.clone()
        masters = [group["params"][0] for group in plain_groups]
        wanted = torch.nn.utils.clip_grad_norm_(masters, clip_norm or float("inf"))
        plain.step()
        plain.zero_grad(set_to_none=True)
        chosen = [update.optimizer.param_groups[number] for number in active]
        norm = update.step(chosen, [g * loss_scale for g in gradients], loss_scale)
        assert float(norm) == pytest.approx(float(wanted), rel=1e-6)
    for group, own in zip(plain_groups, update.optimizer.param_groups, strict=True):
        torch.testing.assert_close(own["params"][0], group["params"][0], rtol=1e-5, atol=1e-7)
        plain_state = plain.state[group["params"][0]]
        own_state = update.optimizer.state[own["params"][0]]
        assert float(own_state["step"]) == float(plain_state["step"])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("policy", ["path-sparse", "shared-step", "zero-gradient"])
@pytest.mark.parametrize("kind", [SparseAdamW, SparseLamb])
def test_a_gradient_that_is_not_finite_changes_no_bit(
    kind: type[UpdateRule], policy: Policy, poison: float
) -> None:
    update, values = build(0.5, kind, policy)
    groups = update.optimizer.param_groups
    update.step(groups, [torch.ones_like(value) for value in values], 1.0)
    update.step(groups[:1], [torch.ones_like(values[0])], 1.0)  # counters differ from here on

    def everything() -> list[Tensor]:
        state = update.optimizer.state
        masters = [group["params"][0] for group in groups]
        return [m.detach().clone() for m in masters] + [
            state[m][part].clone() for m in masters for part in ("exp_avg", "exp_avg_sq", "step")
        ]

    before = everything()
    gradients = [torch.ones_like(value) for value in values]
    gradients[1][2] = poison
    norm = update.step(groups, gradients, 1.0)
    assert not torch.isfinite(norm)
    assert all(torch.equal(old, new) for old, new in zip(before, everything(), strict=True))
    assert update.num_skipped is not None
    assert float(update.num_skipped) == 1


def test_the_optimizer_gets_its_groups_back() -> None:
    update, values = build(0.0)
    groups = list(update.optimizer.param_groups)
    update.step(groups[:1], [torch.ones_like(values[0])], 1.0)
    now = update.optimizer.param_groups
    assert all(old is new for old, new in zip(groups, now, strict=True))
    assert all(group["params"][0].grad is None for group in groups)
