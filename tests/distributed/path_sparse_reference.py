"""The same training in plain torch: no DeepSpeed, no flat buffers, ``grad=None`` if unsampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from path_sparse_setting import OPTIMIZER, Setting, build_supernet, paths, plan_of
from torch import Tensor
from toy_tenant import ToyObjective

from magicbert.training.path_sparse.groups import parameter_groups

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Named = dict[str, Tensor]


@dataclass(frozen=True)
class ReferenceStep:
    """What one step leaves behind."""

    loss: float
    norm: float
    masters: Named


@cache
def reference(
    num_ranks: int, count: int, reduces_each_micro_batch: bool, setting: Setting
) -> list[ReferenceStep]:
    """Trains; every rank computes all ranks' batches. Cached: stages share their reference."""
    return list(train(num_ranks, count, reduces_each_micro_batch, setting))


def reference_of(setting: Setting, num_ranks: int, count: int) -> list[ReferenceStep]:
    plain = Setting(
        precision=setting.precision, micro_batches=setting.micro_batches,
        clip_norm=setting.clip_norm, rule=setting.rule, policy=setting.policy,
    )  # fmt: skip
    return reference(num_ranks, count, setting.stage >= 2, plain)


def train(
    num_ranks: int, count: int, reduces_each_micro_batch: bool, setting: Setting
) -> Iterator[ReferenceStep]:
    model = build_supernet().to(DTYPES[setting.precision])
    parameters = dict(model.named_parameters())
    # LAMB has no torch optimizer to be held against; its reference calculates in fp64.
    dtype = torch.float64 if setting.rule == "lamb" else torch.float32
    masters = {name: p.detach().to(dtype) for name, p in parameters.items()}
    stepper = Lamb(masters) if setting.rule == "lamb" else AdamW(masters, setting.policy)
    for step, path in enumerate(paths(count)):
        plan = plan_of(setting, step, path, num_ranks)
        loss, pieces = 0.0, {}
        for rank in range(num_ranks):
            for number, batch in enumerate(setting.source.step_batches(step, rank, num_ranks)):
                part = ToyObjective()(model, batch, path).loss_sum / plan.count
                part.backward()
                loss += float(part.detach())
                pieces[rank, number] = take_gradients(parameters)
        gradients = add_up(pieces, reduces_each_micro_batch)
        norm = float(torch.stack([g.norm() for g in gradients.values()]).norm())
        if setting.clip_norm > 0:
            scale = min(1.0, setting.clip_norm / (norm + 1e-6))
            gradients = {name: gradient * scale for name, gradient in gradients.items()}
        stepper.step(gradients)
        for name, parameter in parameters.items():
            parameter.data.copy_(masters[name].detach())
        yield ReferenceStep(loss, norm, {n: m.detach().clone() for n, m in masters.items()})


def take_gradients(parameters: Named) -> Named:
    taken = {n: p.grad.float() for n, p in parameters.items() if p.grad is not None}
    for parameter in parameters.values():
        parameter.grad = None
    return taken


def add_up(pieces: dict[tuple[int, int], Named], reduces_each_micro_batch: bool) -> Named:
    """Sums in the engine's order: stages 2 and 3 sum a micro-batch over ranks, the others last."""
    outer, inner = (1, 0) if reduces_each_micro_batch else (0, 1)
    total: Named = {}
    for first in sorted({key[outer] for key in pieces}):
        part: Named = {}
        for second in sorted({key[inner] for key in pieces}):
            key = (second, first) if reduces_each_micro_batch else (first, second)
            part = added(part, pieces[key])
        total = added(total, part)
    return total


def added(left: Named, right: Named) -> Named:
    return {
        name: left[name] + right[name] if name in left and name in right
        else left.get(name, right.get(name))
        for name in left.keys() | right.keys()
    }  # type: ignore[misc]  # fmt: skip


class AdamW:
    """``torch.optim.AdamW``; the other policies change its gradients or its counters."""

    def __init__(self, masters: Named, policy: str) -> None:
        self.masters, self.policy, self.num_steps = masters, policy, 0
        for master in masters.values():
            master.requires_grad_()
        groups = parameter_groups(build_supernet(), OPTIMIZER.weight_decay)
        for group in groups:
            group["params"] = [masters[name] for name in group["parameter_names"]]
        self.adamw = torch.optim.AdamW(
            groups, lr=OPTIMIZER.learning_rate, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
            eps=OPTIMIZER.epsilon, foreach=False,
        )  # fmt: skip

    def step(self, gradients: Named) -> None:
        for name, master in self.masters.items():
            master.grad = gradients.get(name)
            if master.grad is None and self.policy == "zero-gradient":
                master.grad = torch.zeros_like(master)
            if master.grad is not None and self.policy == "shared-step":
                state = self.adamw.state[master]
                state.setdefault("exp_avg", torch.zeros_like(master))
                state.setdefault("exp_avg_sq", torch.zeros_like(master))
                state["step"] = torch.tensor(float(self.num_steps))
        self.adamw.step()
        self.num_steps += 1


class Lamb:
    """One tensor after the other, as the paper writes it; vectors take AdamW's step."""

    def __init__(self, masters: Named) -> None:
        self.masters = masters
        self.moments = {n: (torch.zeros_like(m), torch.zeros_like(m)) for n, m in masters.items()}
        self.num_steps = dict.fromkeys(masters, 0)

    def step(self, gradients: Named) -> None:
        beta1, beta2 = OPTIMIZER.beta1, OPTIMIZER.beta2
        for name, gradient in gradients.items():
            master, (mean, square) = self.masters[name], self.moments[name]
            self.num_steps[name] += 1
            mean.mul_(beta1).add_((1 - beta1) * gradient)
            square.mul_(beta2).add_((1 - beta2) * gradient.to(square.dtype) ** 2)
            corrected = mean / (1 - beta1 ** self.num_steps[name])
            root = (square / (1 - beta2 ** self.num_steps[name])).sqrt()
            direction = corrected / (root + OPTIMIZER.epsilon)
            ratio = 1.0
            if master.ndim > 1:
                direction = direction + OPTIMIZER.weight_decay * master
                ratio = float(master.norm() / direction.norm())
            master.sub_(OPTIMIZER.learning_rate * ratio * direction)
