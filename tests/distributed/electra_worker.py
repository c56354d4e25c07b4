"""What the ranks of test_electra.py run: a few joint steps per ZeRO stage, beside plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from bert_examples import config
from path_sparse_setting import OPTIMIZER, Setting, training_section
from torch import Tensor

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.generator import GeneratorSizes
from magicbert.bert.objectives.rtd import ReplacedTokenDetection
from magicbert.config.sections import AlignmentSection
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.path_sparse.groups import parameter_groups
from magicbert.training.starting.environment import join_process_group

SPACE = SearchSpace.uniform(2, ("mha2", "ffn", "conv3"))
# conv3 is never sampled; each of the others is in turn.
PATHS = [Architecture.parse(text) for text in ("mha2-ffn", "ffn-ffn", "ffn-mha2", "mha2-mha2")]
ROWS, LENGTH = 2, 12
RTD = ReplacedTokenDetection()


def build() -> ElectraSupernet:
    sizes = config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return ElectraSupernet(SPACE, sizes, 3, GeneratorSizes(1, 8, 1))


def batch(step: int, rank: int, number: int) -> TokenBatch:
    """Micro-batches of ranks and numbers have different numbers of masks and of tokens."""
    generator = torch.Generator().manual_seed(100 * step + 10 * rank + number)
    ids = torch.randint(1, 59, (ROWS, LENGTH), generator=generator)
    segments = torch.ones_like(ids)
    segments[0, LENGTH - 2 * rank - number :] = 0
    order = torch.randperm(8, generator=generator)[: 2 + rank + 2 * number]
    positions = (LENGTH + order).sort().values
    labels = ids.flatten()[positions].clone()
    return TokenBatch(ids, segments, positions, labels, (0, 1))


def seed(step: int, rank: int, number: int) -> None:
    """The draws of a micro-batch are a function of where it stands, as in the loop."""
    torch.manual_seed(1000 * step + 10 * rank + number)


def plan_of(step: int, path: Architecture, batches: list[TokenBatch]) -> StepPlan:
    count = sum(RTD.count(given) for given in batches)
    masked = sum(RTD.num_auxiliary(given) for given in batches)
    return StepPlan(step, path, None, count, count, num_auxiliary=masked)


def trained_plainly(num_ranks: int) -> tuple[ElectraSupernet, list[float]]:
    """Trains on all ranks' micro-batches with torch alone."""
    model = build()
    module, losses = TrainingModule(model, RTD, AlignmentSection()), []
    adamw = torch.optim.AdamW(
        parameter_groups(model, OPTIMIZER.weight_decay), lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2), eps=OPTIMIZER.epsilon, foreach=False,
    )  # fmt: skip
    places = [(rank, number) for rank in range(num_ranks) for number in range(2)]
    for step, path in enumerate(PATHS):
        plan = plan_of(step, path, [batch(step, *place) for place in places])
        total = 0.0
        for place in places:
            seed(step, *place)
            loss, task, *_ = module(batch(step, *place), plan)
            loss.backward()
            total += float(task)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        losses.append(total)
    return model, losses


def trained_at(stage: int, rank: int, num_ranks: int) -> tuple[ElectraSupernet, list[float]]:
    """Trains on this rank with the engine; the losses are this rank's shares."""
    setting = Setting(stage=stage, micro_batches=2, clip_norm=0.5)  # type: ignore[arg-type]
    module = TrainingModule(build(), RTD, AlignmentSection())
    engine = TrainingEngine(
        module, training_section(setting, num_ranks, ROWS), setting.optimizer, num_ranks=num_ranks
    )
    losses = []
    for step, path in enumerate(PATHS):
        places = [(other, number) for other in range(num_ranks) for number in range(2)]
        plan = plan_of(step, path, [batch(step, *place) for place in places])
        engine.begin_step(path, OPTIMIZER.learning_rate)
        share = 0.0
        for number in range(2):
            seed(step, rank, number)
            given = batch(step, rank, number).to(engine.device)
            loss, task, *_ = engine.forward(given, plan, is_last=number == 1)
            engine.backward(loss)
            share += float(task)
        engine.step()
        losses.append(share)
    engine.restore_masters()
    return module.supernet, losses  # type: ignore[return-value]


def check_stages(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Returns how far every stage is from plain torch."""
    ranks = join_process_group()
    expected, wanted = trained_plainly(num_ranks)
    start = build().state_dict()
    found = {}
    for stage in range(4):
        model, shares = trained_at(stage, rank, num_ranks)
        state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        totals = [sum(both) for both in zip(*ranks.gather_floats(shares, "losses"), strict=True)]

        def largest(other: dict[str, Tensor], part: str, state: dict = state) -> float:
            names = [name for name in state if part in name]
            return max(float((state[name] - other[name]).abs().max()) for name in names)

        found[str(stage)] = {
            "error": max(
                float((state[name] - value).abs().max())
                for name, value in expected.state_dict().items()
                if "query_key_value.bias" not in name  # its key part has a gradient of zero
            ),
            "idle": largest(start, "conv3"),
            "generator moved": largest(start, "generator.encoder") > 1e-4,
            "loss error": max(abs(a - b) for a, b in zip(totals, wanted, strict=True)),
        }
    return found
