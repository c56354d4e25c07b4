"""What the ranks of test_path_sparse_stage3.py run: one process start, many checks."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import loop_worker
import torch
from deepspeed import comm as dist
from torch import Tensor
from toy_tenant import ToyBatch, ToyObjective, ToyOperator, ToySource

from magicbert.config.sections import AlignmentSection, OptimizerSection, TrainingSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.supernet import Supernet
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.starting.environment import join_process_group

LAYERS, WIDTH, ROWS = 3, 16, 4
COLLECTIVES = ("all_gather_into_tensor", "reduce_scatter_tensor", "all_reduce")
OPTIMIZER = OptimizerSection(learning_rate=1e-3, clip_norm=0.5)


class WideSupernet(Supernet):
    """A toy with as many equal candidates as one likes."""

    def __init__(self, num_candidates: int) -> None:
        space = SearchSpace.uniform(LAYERS, tuple(f"op{i}" for i in range(num_candidates)))
        super().__init__(space, lambda layer, name: ToyOperator("middle", WIDTH))
        self.embed = torch.nn.Linear(WIDTH, WIDTH)
        self.head = torch.nn.Linear(WIDTH, 2)

    def enter(self, batch: ToyBatch) -> tuple[Tensor, Any]:
        return self.embed(batch.inputs.to(self.embed.weight.dtype)), None


def build(num_candidates: int, num_ranks: int, **training: Any) -> TrainingEngine:
    torch.manual_seed(5)
    settings = {
        "rows_per_step": 2 * ROWS * num_ranks,
        "rows_per_micro_batch": ROWS,
        "precision": "fp32",
        "zero_stage": 3,
        **training,
    }
    section = TrainingSection(**settings)  # type: ignore[arg-type]
    alignment = AlignmentSection(num_blocks=LAYERS)
    module = TrainingModule(WideSupernet(num_candidates), ToyObjective(), alignment)
    return TrainingEngine(module, section, OPTIMIZER, num_ranks=num_ranks)


def take_step(
    engine: TrainingEngine, names: tuple[str, ...], anchor: tuple[str, ...] | None, ranks: Any
) -> None:
    path = Architecture(names)
    aligned = None if anchor is None else Architecture(anchor)
    plan = StepPlan(0, path, aligned, 16, 16)
    engine.begin_step(path, 1e-3, aligned)
    batches = ToySource(ROWS, 2, WIDTH).step_batches(0, ranks.rank, ranks.num_ranks)
    for number, batch in enumerate(batches):
        loss, *_ = engine.forward(batch, plan, is_last=number == 1)
        engine.backward(loss)
    engine.step()


# --- bytes and collectives ----------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[tuple[Counter[str], Counter[str]]]:
    """Counts the calls of collectives and the bytes they carry (the larger of both ends)."""
    calls: Counter[str] = Counter()
    carried: Counter[str] = Counter()
    originals = {name: getattr(dist, name) for name in COLLECTIVES}

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*tensors: Any, **options: Any) -> Any:
            calls[name] += 1
            sizes = [t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor)]
            carried[name] += max(sizes)
            return original(*tensors, **options)

        return call

    for name, original in originals.items():
        setattr(dist, name, wrap(name, original))
    try:
        yield calls, carried
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def traffic(num_candidates: int, ranks: Any, **training: Any) -> dict[str, Any]:
    """Calls and bytes of one step of each kind, after one step to warm up."""
    engine = build(num_candidates, ranks.num_ranks, **training)
    path, anchor = ("op0", "op1", "op2"), ("op0", "op2", "op2")
    take_step(engine, path, None, ranks)
    units = engine.optimizer.units
    found: dict[str, Any] = {
        "shared": 4 * units["shared"].numel, "operator": 4 * units["layers.0.op0"].numel
    }  # fmt: skip
    for kind, aligned in (("plain", None), ("anchored", anchor)):
        with counted() as (calls, carried):
            take_step(engine, path, aligned, ranks)
        found[kind] = {"calls": dict(calls), "bytes": dict(carried)}
    with counted() as (calls, carried), engine.gathered(Architecture(path)):
        pass
    found["reading"] = {"calls": dict(calls), "bytes": dict(carried)}
    return found


# --- memory -------------------------------------------------------------------------------------


def held_bytes(engine: TrainingEngine) -> int:
    """Bytes of the storages of everything that a rank keeps of the model, each counted once."""
    optimizer = engine.optimizer
    moments = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [
        *(parameter.data for parameter in engine.module.parameters()),
        *(parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None),
        *(unit._storage for unit in optimizer.units.values()),
        optimizer.lp_param_buffer, *optimizer.masters, *moments, *optimizer.scatter.parts.values(),
    ]  # fmt: skip
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def memory(ranks: Any, precision: str, offload: bool) -> dict[str, float]:
    """Bytes a rank holds between steps, beside the parameters of supernet and path."""
    engine = build(8, ranks.num_ranks, precision=precision, offload_optimizer=offload)
    built = held_bytes(engine)
    take_step(engine, ("op0", "op1", "op2"), None, ranks)
    units = engine.optimizer.units
    trained = ("shared", "layers.0.op0", "layers.1.op1", "layers.2.op2")
    return {
        "built": built,
        "after a step": held_bytes(engine),
        "parameters": sum(unit.numel for unit in units.values()),
        "trained parameters": sum(units[owner].numel for owner in trained),
    }


# --- refusals and mistakes ----------------------------------------------------------------------


def message_of(action: Callable[[], Any], kind: type[Exception]) -> str:
    try:
        action()
    except kind as error:
        return str(error)
    return ""


def mistakes(ranks: Any) -> dict[str, str]:
    engine = build(4, ranks.num_ranks)
    batch = ToySource(ROWS, 2, WIDTH).step_batches(0, ranks.rank, ranks.num_ranks)[0]
    named, other = Architecture(("op0", "op0", "op0")), Architecture(("op0", "op1", "op0"))
    supernet = engine.module.supernet
    found = {
        "save": message_of(lambda: engine.engine.save_checkpoint("x"), UserError),
        "load": message_of(lambda: engine.engine.load_checkpoint("x"), UserError),
        "unread": message_of(lambda: supernet(batch, named), RuntimeError),
    }
    engine.begin_step(named, 1e-3)
    plan = StepPlan(0, other, None, 16, 16)
    found["other path"] = message_of(
        lambda: engine.forward(batch, plan, is_last=True), RuntimeError
    )
    engine.begin_step(other, 1e-3)  # the step that was begun is forgotten
    take_step(engine, tuple(other), None, ranks)
    return found


# --- the loop: evaluation, alignment, dropout, checkpoints, the weights in the end ----------------


def loops(ranks: Any, folder: Path) -> dict[str, Any]:
    """The same run at stage 1 and at stage 3, whole and in short memory."""
    n = ranks.num_ranks
    settings: dict[str, dict[str, Any]] = {
        "stage 1": {"stage": 1},
        "stage 3": {"stage": 3},
        "short memory": {"stage": 3, "max_live_parameters": 300},
        "offloaded": {"stage": 3, "offload_optimizer": True},
    }
    found: dict[str, Any] = {}
    for name, values in settings.items():
        stage = values.pop("stage")
        config = loop_worker.configuration(stage, "fp32", n, **values)
        outcome, _ = loop_worker.run(config, folder / name, ranks)
        rows = loop_worker.steps_of(folder / name) if ranks.rank == 0 else []
        found[name] = {"rows": rows, "valid": outcome.valid.loss}
    return found


def restored(ranks: Any) -> dict[str, Any]:
    """What is left of DeepSpeed on a model whose training is over."""
    engine = build(4, ranks.num_ranks, precision="bf16")
    take_step(engine, ("op0", "op1", "op2"), None, ranks)
    masters = engine.optimizer.gather_masters()
    names = {p: name for name, p in engine.module.supernet.named_parameters()}
    expected = {names[p]: value for p, value in masters.items()}
    engine.restore_masters()
    supernet = copy.deepcopy(engine.module.supernet)
    batch = ToySource(ROWS, 1, WIDTH).dev_batches(1)[0]
    output = supernet(batch, Architecture(("op3", "op1", "op0")))
    return {
        "marks": sorted({name for p in supernet.parameters() for name in vars(p)}),
        "equal": all(torch.equal(p, expected[name]) for name, p in supernet.named_parameters()),
        "dtypes": sorted({str(p.dtype) for p in supernet.parameters()}),
        "finite": bool(output.hidden.isfinite().all()),
    }


def check_everything(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    ranks = join_process_group()
    torch.set_num_threads(1)
    return {
        "traffic": {n: traffic(n, ranks) for n in (4, 8)},
        "short of memory": traffic(4, ranks, max_live_parameters=0),
        "memory": {
            "fp32": memory(ranks, "fp32", False), "bf16": memory(ranks, "bf16", False),
            "bf16, offloaded": memory(ranks, "bf16", True),
        },
        "mistakes": mistakes(ranks),
        "loops": loops(ranks, folder),
        "restored": restored(ranks),
        "resume": loop_worker.resume_is_exact(
            rank, num_ranks, folder, [[3, "fp32"], [3, "bf16"]]
        ),
    }  # fmt: skip
