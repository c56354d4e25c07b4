"""What the ranks of test_path_sparse.py run: one process start, many checks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import deepspeed
import torch
from path_sparse_bert import bert_errors, key_bias_gradients
from path_sparse_half import half_precision
from path_sparse_reference import reference_of
from path_sparse_setting import OPTIMIZER, Setting, accumulate, build_engine, build_supernet, paths
from path_sparse_whole import state_of, whole
from torch import Tensor
from toy_tenant import ToyBatch, ToyObjective

from magicbert.training.engine import TrainingEngine
from magicbert.training.path_sparse.groups import GroupIndex, parameter_groups
from magicbert.training.path_sparse.state import read_state
from magicbert.training.starting import environment

# --- the matrix ---------------------------------------------------------------------------------


def every_cell() -> Iterator[Setting]:
    """Stage x offload x precision x accumulation x clipping."""
    places = ((0, False), (1, False), (1, True), (2, False), (2, True))
    for (stage, offload), precision in product(places, ("fp32", "bf16")):
        for micro_batches, clip_norm in product((1, 3), (0.0, 0.5)):
            yield Setting(stage, precision, offload, micro_batches, clip_norm)  # type: ignore[arg-type]


def covering_cells() -> list[Setting]:
    """Every stage, offload and precision once, with accumulation and clipping taking turns."""
    wanted = [(3, 0.5), (1, 0.5), (3, 0.0), (1, 0.0)]
    cells = list(every_cell())
    return [
        cell
        for number, block in enumerate(cells[i : i + 4] for i in range(0, len(cells), 4))
        for cell in block
        if (cell.micro_batches, cell.clip_norm) == wanted[(number + number // 4) % 4]
    ]


# --- one cell: nothing strays, and the trajectory is plain torch's -----------------------------


def snapshot(engine: TrainingEngine, setting: Setting) -> dict[str, Tensor]:
    """Weights of the model and optimizer state of this rank, flat, as ``owner part``."""
    with whole(engine):
        weights = {
            f"{name.removeprefix('supernet.')}:weight": value.detach().clone()
            for name, value in engine.module.state_dict().items()
        }
    if setting.stock and setting.stage == 0:
        state = {
            f"{group['name']}:{index}.{part}": value
            for group in engine.optimizer.param_groups
            for index, parameter in enumerate(group["params"])
            for part, value in engine.optimizer.state[parameter].items()
        }
    else:
        state = state_of(engine)
    parts: dict[str, list[Tensor]] = {}
    for name, value in (weights | state).items():
        part = name.split(":")[1].split(".")[-1]
        parts.setdefault(f"{owner_of(name)} {part}", []).append(value.detach().reshape(-1))
    return {name: torch.cat(values) for name, values in parts.items()}


def owner_of(name: str) -> str:
    """Such as ``layers.3.ffn``, of a parameter's or a group's name."""
    is_layer = name.startswith("layers.")
    return ".".join(name.split(":")[0].split("/")[0].split(".")[:3]) if is_layer else "shared"


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names whose bits changed; state that appears counts as a change unless it is all zero."""
    nothing = torch.zeros(0)
    return {
        name
        for name, new in after.items()
        if not torch.equal(before.get(name, nothing), new)
        and (name in before or bool(new.ne(0).any()))
    }


def train(setting: Setting, rank: int, num_ranks: int, count: int = 50) -> dict[str, Any]:
    """Trains random paths.

    Returns:
        What moved though unsampled, what stood still though sampled, and the largest differences
        to plain torch.
    """
    engine = build_engine(setting, num_ranks)
    strays, idle = set(), set()
    errors = dict.fromkeys(("weights", "loss", "norm"), 0.0)
    largest_norm = 0.0
    before = snapshot(engine, setting)
    expected = reference_of(setting, num_ranks, count)
    for step, path in enumerate(paths(count)):
        loss = accumulate(engine, setting, step, path, rank, num_ranks)
        norm = float(engine.step())
        after = snapshot(engine, setting)
        sampled = {f"layers.{layer}.{name}" for layer, name in enumerate(path)} | {"shared"}
        changed = moved(before, after)
        strays |= {name for name in changed if name.split()[0] not in sampled}
        idle |= {f"{step} {owner}" for owner in sampled - {name.split()[0] for name in changed}}
        before = after
        torch.distributed.all_reduce(loss)
        errors["loss"] = max(errors["loss"], abs(float(loss) - expected[step].loss))
        errors["norm"] = max(errors["norm"], abs(norm - expected[step].norm))
        largest_norm = max(largest_norm, expected[step].norm)
    errors["weights"] = largest_difference(engine, expected[-1].masters)
    return {
        "strays": sorted(strays), "idle": sorted(idle), "errors": errors,
        "clips": largest_norm > 2 * setting.clip_norm > 0,
    }  # fmt: skip


def largest_difference(engine: TrainingEngine, expected: dict[str, Tensor]) -> float:
    """Compares masters, or in stock DeepSpeed the weights."""
    parameters = dict(engine.module.supernet.named_parameters())
    with whole(engine):
        masters = {p: p.detach().clone() for p in parameters.values()}
    if hasattr(engine.optimizer, "gather_masters"):
        masters = engine.optimizer.gather_masters()
    return max(
        float((masters[parameters[name]].detach().cpu() - value).abs().max())
        for name, value in expected.items()
    )


# --- an operator first sampled late -------------------------------------------------------------


def first_update(policy: str, rank: int, num_ranks: int) -> float:
    """Median update of a late operator's weights, in learning rates, when 2000 steps were taken."""
    setting = Setting(policy=policy, clip_norm=0.0, beta2=0.999, weight_decay=0.0)  # type: ignore[arg-type]
    engine = build_engine(setting, num_ranks)
    early, late = paths(1)[0], paths(1)[0]
    names = list(early)
    names[1] = next(name for name in ("small", "middle", "large") if name != early[1])
    late = type(early)(tuple(names))
    accumulate(engine, setting, 0, early, rank, num_ranks)
    engine.step()
    for name, value in read_state(engine.optimizer).items():
        if name.endswith(":step"):
            value.fill_(2000.0)
    weight = engine.module.supernet.operator(1, names[1]).outer.weight
    before = weight.detach().clone()
    accumulate(engine, setting, 1, late, rank, num_ranks)
    engine.step()
    return float((weight.detach() - before).abs().median()) / OPTIMIZER.learning_rate


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
    setting = Setting(stage=stage)  # type: ignore[arg-type]
    engine = build_engine(setting, num_ranks)
    path = paths(1)[0]
    accumulate(engine, setting, 3, path, rank, num_ranks)
    model = build_supernet()
    parts = [b for r in range(num_ranks) for b in setting.source.step_batches(3, r, num_ranks)]
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


# --- masters can be found -----------------------------------------------------------------------


def placement_faults(num_ranks: int, setting: Setting) -> list[str]:
    """Rebuilds the model from all ranks' masters; names what is missing, twice there or wrong."""
    engine = build_engine(setting, num_ranks)
    optimizer, values = engine.optimizer, {}
    for number, group in enumerate(optimizer.param_groups):
        for piece in optimizer.pieces(number):
            master = optimizer.masters[number].detach()
            run = master[piece.offset : piece.offset + piece.length]
            values[group["parameter_names"][piece.parameter], piece.start] = run.clone()
    everyone: list[Any] = [values]
    if setting.stage > 0:  # at stage 0 each rank holds everything
        everyone = [None] * num_ranks
        torch.distributed.all_gather_object(everyone, values)
    with whole(engine):
        named = engine.module.supernet.named_parameters()
        weights = {name: weight.detach().clone() for name, weight in named}
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


# --- entries ------------------------------------------------------------------------------------


def start() -> None:
    torch.set_num_threads(1)
    environment.prepare_operators()
    deepspeed.init_distributed("gloo")


def check_everything(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    start()
    others = [
        Setting(0, policy="shared-step"),
        Setting(1, policy="shared-step"),
        Setting(0, policy="zero-gradient"),
        Setting(2, policy="zero-gradient"),
        *(Setting(stage, rule="lamb") for stage in (0, 1)),  # type: ignore[arg-type]
        Setting(2, rule="lamb", offload=True),
    ]
    # Without momentum and decay a zero gradient moves nothing: what moves is a stale gradient.
    still = {"beta1": 0.0, "weight_decay": 0.0, "stock": True}
    stock = {
        **{f"stage {n}": Setting(stage=n, stock=True) for n in (0, 1, 2)},  # type: ignore[arg-type]
        "still": Setting(**still),  # type: ignore[arg-type]
        "still, offload": Setting(offload=True, **still),  # type: ignore[arg-type]
    }
    return {
        "cells": {
            str(cell): train(cell, rank, num_ranks, 50 // num_ranks) for cell in covering_cells()
        },
        "other rules": {str(cell): train(cell, rank, num_ranks, 15) for cell in others},
        "stock": {name: train(cell, rank, num_ranks, 8) for name, cell in stock.items()},
        "first update": {
            policy: first_update(policy, rank, num_ranks)
            for policy in ("path-sparse", "shared-step")
        },
        "bert": bert_errors(rank, num_ranks),
        "key bias gradients": key_bias_gradients(),
        "half precision": half_precision(rank, num_ranks),
        "gradients": {f"stage {n}": gradient_error(rank, num_ranks, n) for n in (0, 1, 2)},
        "placement": {
            str(cell): placement_faults(num_ranks, cell)
            for cell in (
                Setting(0, "bf16"), Setting(1), Setting(1, offload=True), Setting(2, "bf16"),
            )
        },
    }  # fmt: skip


def check_few(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    """A cheap check for many ranks."""
    start()
    cells = (Setting(1, micro_batches=1), Setting(2, "bf16", offload=True), Setting(1, rule="lamb"))
    return {
        "cells": {str(cell): train(cell, rank, num_ranks, 15) for cell in cells},
        "placement": {str(cell): placement_faults(num_ranks, cell) for cell in cells},
    }


def check_whole_matrix(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    start()
    return {"cells": {str(cell): train(cell, rank, num_ranks) for cell in every_cell()}}
