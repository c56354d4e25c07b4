"""The trajectory of a BERT supernet with attention; its key bias has a gradient of exactly zero."""

from __future__ import annotations

import numpy as np
import torch
from path_sparse_setting import OPTIMIZER, Setting, training_section
from torch import Tensor

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet, build_supernet
from magicbert.config.sections import AlignmentSection, ModelSection
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.path_sparse.groups import parameter_groups

HIDDEN, VOCABULARY, ROWS, LENGTH = 16, 40, 2, 12
SPACE = SearchSpace.uniform(3, ("mha2", "ffn", "conv3"))
SETTING = Setting(stage=1, micro_batches=1)


def build_bert() -> BertSupernet:
    sizes = ModelSection(hidden_size=HIDDEN, max_length=LENGTH, dropout=0.0, attention_dropout=0.0)
    return build_supernet(SPACE, sizes, VOCABULARY, 0, seed=3)


def bert_paths(count: int) -> list[Architecture]:
    generator = np.random.default_rng(11)
    return [SPACE.sample(generator) for _ in range(count)]


def bert_batch(step: int, rank: int) -> TokenBatch:
    generator = torch.Generator().manual_seed(100 * step + rank)
    ids = torch.randint(1, VOCABULARY, (ROWS, LENGTH), generator=generator)
    predicted = torch.randperm(ROWS * LENGTH, generator=generator)[:6].sort().values
    labels = torch.randint(1, VOCABULARY, (6,), generator=generator)
    return TokenBatch(ids, torch.ones_like(ids), predicted, labels, (0, 1))


def key_bias(name: str, value: Tensor) -> Tensor | None:
    """The key's part of an attention's fused bias, else nothing."""
    if not name.endswith("query_key_value.bias"):
        return None
    return value[HIDDEN : 2 * HIDDEN]


def key_bias_gradients() -> dict[str, dict[str, float]]:
    """Largest gradient of key biases and of query biases, in fp64."""
    model = build_bert().double()
    path = Architecture.parse("mha2-mha2-mha2")
    MaskedLanguageModeling()(model, bert_batch(0, 0), path).loss_sum.double().backward()
    found = {"key": {}, "query": {}}  # type: dict[str, dict[str, float]]
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and key_bias(name, parameter) is not None:
            found["key"][name] = float(parameter.grad[HIDDEN : 2 * HIDDEN].abs().max())
            found["query"][name] = float(parameter.grad[:HIDDEN].abs().max())
    return found


def bert_errors(rank: int, num_ranks: int, count: int = 30) -> dict[str, float]:
    """Largest differences to plain torch, of key biases and of everything else."""
    module = TrainingModule(build_bert(), MaskedLanguageModeling(), AlignmentSection())
    engine = TrainingEngine(
        module, training_section(SETTING, num_ranks, ROWS), SETTING.optimizer, num_ranks=num_ranks
    )
    model = build_bert()
    adamw = torch.optim.AdamW(
        parameter_groups(model, OPTIMIZER.weight_decay), lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2), eps=OPTIMIZER.epsilon, foreach=False,
    )  # fmt: skip
    for step, path in enumerate(bert_paths(count)):
        engine.begin_step(path, OPTIMIZER.learning_rate)
        plan = StepPlan(step, path, None, 6 * num_ranks, ROWS * LENGTH * num_ranks)
        batch = bert_batch(step, rank).to(engine.device)
        engine.backward(engine.forward(batch, plan, is_last=True)[0])
        engine.step()
        for other in range(num_ranks):
            loss = MaskedLanguageModeling()(model, bert_batch(step, other), path).loss_sum
            (loss / plan.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTING.clip_norm)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
    errors = {"key bias": 0.0, "else": 0.0}
    expected = dict(model.named_parameters())
    for name, parameter in module.supernet.named_parameters():
        off = (parameter.detach().cpu() - expected[name].detach()).abs()
        key = key_bias(name, off)
        if key is not None:
            errors["key bias"] = max(errors["key bias"], float(key.max()))
            off[HIDDEN : 2 * HIDDEN] = 0.0
        errors["else"] = max(errors["else"], float(off.max()))
    return errors
