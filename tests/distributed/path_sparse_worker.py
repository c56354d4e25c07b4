"""What the ranks of test_path_sparse.py run: one process start, many checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
from torch import Tensor, nn
from toy_tenant import ToyBatch, ToyObjective, ToySource, ToySupernet, toy_space

from magicbert.config.sections import AlignmentSection, OptimizerSection, TrainingSection
from magicbert.space import Architecture
from magicbert.training import environment
from magicbert.training.engine import Policy, TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.path_sparse.groups import GroupIndex, parameter_groups
from magicbert.training.path_sparse.state import read_state

ROWS, MICRO_BATCHES = 4, 2
OPTIMIZER = OptimizerSection(
    learning_rate=1e-3, weight_decay=0.1, clip_norm=0.5, beta1=0.9, beta2=0.98, epsilon=1e-6
)


class CastingSupernet(ToySupernet):
    """The toy in the precision of its weights."""

    def enter(self, batch: ToyBatch) -> tuple[Tensor, Any]:
        return self.embed(batch.inputs.to(self.embed.weight.dtype)), None


def build_supernet() -> CastingSupernet:
    torch.manual_seed(5)
    return CastingSupernet(toy_space())


def build_engine(
    stage: int, precision: str, num_ranks: int, policy: Policy = "path-sparse"
) -> TrainingEngine:
    training = TrainingSection(
        rows_per_step=ROWS * MICRO_BATCHES * num_ranks,
        rows_per_micro_batch=ROWS,
        precision=precision,  # type: ignore[arg-type]
        zero_stage=stage,  # type: ignore[arg-type]
    )
    module = TrainingModule(build_supernet(), ToyObjective(), AlignmentSection())
    return TrainingEngine(module, training, OPTIMIZER, num_ranks=num_ranks, policy=policy)


def paths(count: int) -> list[Architecture]:
    generator = np.random.default_rng(7)
    return [toy_space().sample(generator) for _ in range(count)]


def source(num_ranks: int) -> ToySource:
    return ToySource(ROWS, MICRO_BATCHES)


def plan_of(step: int, path: Architecture, num_ranks: int) -> StepPlan:
    batches = [
        b for r in range(num_ranks) for b in source(num_ranks).step_batches(step, r, num_ranks)
    ]
    count = sum(ToyObjective().count(batch) for batch in batches)
    return StepPlan(step, path, None, count, ROWS * MICRO_BATCHES * num_ranks)


def accumulate(
    engine: TrainingEngine, step: int, path: Architecture, rank: int, num_ranks: int
) -> None:
    """Runs a step up to the optimizer."""
    plan = plan_of(step, path, num_ranks)
    engine.begin_step(path, OPTIMIZER.learning_rate)
    batches = source(num_ranks).step_batches(step, rank, num_ranks)
    for number, batch in enumerate(batches):
        loss, _, _ = engine.forward(batch, plan, is_last=number == len(batches) - 1)
        engine.backward(loss)


# --- unsampled operators do not move ----------------------------------------------------------


def snapshot(engine: TrainingEngine, policy: Policy, stage: int) -> dict[str, Tensor]:
    """Weights of the model and optimizer state of this rank, by the owner's name."""
    weights = {
        name.removeprefix("supernet."): value for name, value in engine.module.state_dict().items()
    }
    if policy == "stock" and stage == 0:
        state = {
            f"{group['name']}:{index}.{part}": value
            for group in engine.optimizer.param_groups
            for index, parameter in enumerate(group["params"])
            for part, value in engine.optimizer.state[parameter].items()
        }
    else:
        state = read_state(engine.optimizer)
    return {name: value.detach().clone() for name, value in (weights | state).items()}


def owner_of(name: str) -> str:
    return ".".join(name.split("/")[0].split(".")[:3]) if name.startswith("layers.") else "shared"


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names whose bits changed; state that appears counts as a change unless it is all zero."""
    changed = set()
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            if new is not None and bool(new.ne(0).any()):
                changed.add(name)
        elif not torch.equal(old, new):
            changed.add(name)
    return changed


def movements(
    rank: int, num_ranks: int, stage: int, precision: str, policy: Policy
) -> dict[str, list[str]]:
    """Trains a few random paths; returns what moved though unsampled, and what stood still."""
    engine = build_engine(stage, precision, num_ranks, policy)
    strays, idle = set(), set()
    before = snapshot(engine, policy, stage)
    for step, path in enumerate(paths(8)):
        accumulate(engine, step, path, rank, num_ranks)
        engine.step()
        after = snapshot(engine, policy, stage)
        sampled = {f"layers.{layer}.{name}" for layer, name in enumerate(path)} | {"shared"}
        changed = moved(before, after)
        strays |= {name for name in changed if owner_of(name) not in sampled}
        idle |= {f"{step} {owner}" for owner in sampled - {owner_of(name) for name in changed}}
        before = after
    return {"strays": sorted(strays), "idle": sorted(idle)}


# --- the trajectory is AdamW's with grad=None ---------------------------------------------------


def reference_steps(num_ranks: int, count: int) -> Iterator[tuple[nn.Module, float]]:
    """Plain torch on the whole batch; yields the model and the norm after each step."""
    model = build_supernet()
    groups = parameter_groups(model, OPTIMIZER.weight_decay)
    adamw = torch.optim.AdamW(
        groups, lr=OPTIMIZER.learning_rate, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon, foreach=False,
    )  # fmt: skip
    for step, path in enumerate(paths(count)):
        plan = plan_of(step, path, num_ranks)
        for owner in range(num_ranks):
            for batch in source(num_ranks).step_batches(step, owner, num_ranks):
                (ToyObjective()(model, batch, path).loss_sum / plan.count).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        yield model, float(norm)


def trajectory_errors(
    rank: int, num_ranks: int, stage: int, policy: Policy, count: int = 30
) -> dict[str, float]:
    """Largest difference to plain torch, of weights and of gradient norms, over all steps."""
    engine = build_engine(stage, "fp32", num_ranks, policy)
    weight_error, norm_error = 0.0, 0.0
    for step, (model, norm) in enumerate(reference_steps(num_ranks, count)):
        accumulate(engine, step, paths(count)[step], rank, num_ranks)
        own_norm = engine.step()
        own = dict(engine.module.supernet.named_parameters())
        weight_error = max(
            weight_error,
            *(float((p - own[name]).abs().max().detach()) for name, p in model.named_parameters()),
        )
        norm_error = max(norm_error, abs(float(own_norm) - norm))
    return {"weights": weight_error, "norm": norm_error}


def bf16_trajectory_error(rank: int, num_ranks: int, stage: int, count: int = 30) -> float:
    """Largest difference of fp32 masters to a bf16 model with masters stepped by plain torch."""
    engine = build_engine(stage, "bf16", num_ranks)
    model = build_supernet().bfloat16()
    masters = {p: p.detach().float().requires_grad_() for p in model.parameters()}
    groups = parameter_groups(model, OPTIMIZER.weight_decay)
    for group in groups:
        group["params"] = [masters[parameter] for parameter in group["params"]]
    adamw = torch.optim.AdamW(
        groups, lr=OPTIMIZER.learning_rate, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon, foreach=False,
    )  # fmt: skip
    for step, path in enumerate(paths(count)):
        accumulate(engine, step, path, rank, num_ranks)
        engine.step()
        plan = plan_of(step, path, num_ranks)
        for owner in range(num_ranks):
            for batch in source(num_ranks).step_batches(step, owner, num_ranks):
                (ToyObjective()(model, batch, path).loss_sum / plan.count).backward()
                for parameter, master in masters.items():
                    if parameter.grad is not None:
                        total = 0 if master.grad is None else master.grad
                        master.grad = total + parameter.grad.float()
                        parameter.grad = None
        torch.nn.utils.clip_grad_norm_(masters.values(), OPTIMIZER.clip_norm)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        for parameter, master in masters.items():
            parameter.data.copy_(master.detach())
    own = engine.optimizer.gather_masters()
    names = dict(engine.module.supernet.named_parameters())
    return max(
        float((masters[p].detach() - own[names[name]]).abs().max())
        for name, p in model.named_parameters()
    )


# --- gradients do not depend on how the batch is cut --------------------------------------------


def reduced_gradients(engine: TrainingEngine) -> dict[str, Tensor]:
    """The summed gradients that this rank would step with, by group."""
    optimizer, names = engine.optimizer, GroupIndex.of(engine.optimizer.param_groups).names
    if engine.is_replicated:
        return {names[i]: value for i, value in optimizer.gradients.items()}
    groups = optimizer.averaged_gradients
    return {names[i]: groups[i].flat_partition for i in groups}


def gradient_error(rank: int, num_ranks: int, stage: int) -> float:
    """Compares with one big batch on one process; the micro-batches' counts differ."""
    engine = build_engine(stage, "fp32", num_ranks)
    path = paths(1)[0]
    accumulate(engine, 3, path, rank, num_ranks)
    model = build_supernet()
    parts = [b for r in range(num_ranks) for b in source(num_ranks).step_batches(3, r, num_ranks)]
    counts = [ToyObjective().count(part) for part in parts]
    assert len(set(counts)) > 1, "the test needs unequal counts"
    whole = ToyBatch(
        torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts])
    )
    (ToyObjective()(model, whole, path).loss_sum / sum(counts)).backward()
    error = 0.0
    for group in parameter_groups(model, 0.1):
        if group["name"] not in reduced_gradients(engine):
            assert all(parameter.grad is None for parameter in group["params"])
            continue
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in group["params"]])
        own = reduced_gradients(engine)[group["name"]]
        if not engine.is_replicated:
            padded = torch.nn.functional.pad(flat, (0, own.numel() * num_ranks - flat.numel()))
            flat = padded.chunk(num_ranks)[rank]
        error = max(error, float((flat - own).abs().max()))
    return error


# --- masters can be found --------------------------------------------------------------------


def placement_faults(num_ranks: int, stage: int, precision: str) -> list[str]:
    """Rebuilds the model from all ranks' masters; names what is missing, twice there or wrong."""
    engine = build_engine(stage, precision, num_ranks)
    optimizer, values = engine.optimizer, {}
    for number, group in enumerate(optimizer.param_groups):
        for piece in optimizer.pieces(number):
            master = optimizer.masters[number].detach()
            run = master[piece.offset : piece.offset + piece.length]
            values[group["parameter_names"][piece.parameter], piece.start] = run.clone()
    everyone: list[Any] = [values]
    if stage > 0:  # at stage 0 each rank holds everything
        everyone = [None] * num_ranks
        torch.distributed.all_gather_object(everyone, values)
    weights = dict(engine.module.supernet.named_parameters())
    rebuilt = {name: torch.zeros(weight.numel()) for name, weight in weights.items()}
    times = {name: torch.zeros(weight.numel()) for name, weight in weights.items()}
    for pieces in everyone:
        for (name, start), run in pieces.items():
            rebuilt[name][start : start + len(run)] = run
            times[name][start : start + len(run)] += 1
    return [
        name
        for name, weight in weights.items()
        if not bool(times[name].eq(1).all())
        or not torch.equal(rebuilt[name].to(weight.dtype), weight.detach().reshape(-1))
    ]


# --- entry --------------------------------------------------------------------------------------


def check_everything(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    environment.prepare_operators()
    deepspeed.init_distributed("gloo")
    stages, precisions = (0, 1, 2), ("fp32", "bf16")
    return {
        "movements": {
            f"{precision} stage {stage}": movements(
                rank, num_ranks, stage, precision, "path-sparse"
            )
            for precision in precisions
            for stage in stages
        },
        "stock movements": {
            f"stage {stage}": movements(rank, num_ranks, stage, "fp32", "stock") for stage in stages
        },
        "trajectory": {
            f"stage {stage}": trajectory_errors(rank, num_ranks, stage, "path-sparse")
            for stage in stages
        },
        "bf16 trajectory": {
            f"stage {stage}": bf16_trajectory_error(rank, num_ranks, stage) for stage in stages
        },
        "stock trajectory": trajectory_errors(rank, num_ranks, 1, "stock"),
        "gradients": {f"stage {stage}": gradient_error(rank, num_ranks, stage) for stage in stages},
        "placement": {
            f"{precision} stage {stage}": placement_faults(num_ranks, stage, precision)
            for precision in precisions
            for stage in stages
        },
    }
