"""Memory of a forward, by rehearsing one on tensors without memory."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from magicbert_kernels.backend import Backend
from magicbert_kernels.linear_cross_entropy.chunks import scratch_bytes
from torch import Tensor

from magicbert.bert.modeling.host_attention import host_attention
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.objectives.building import build_objective
from magicbert.bert.rehearsal import NO_MEMORY, Rehearsal, rehearsal_batch
from magicbert.config.roots import PretrainConfig, RetrainConfig
from magicbert.config.sections import AlignmentSection, ModelSection
from magicbert.planning.activations import (
    FusedKernels,
    fused_attention,
    kept_bytes,
    peak_bytes,
)
from magicbert.planning.memory import ForwardMemory
from magicbert.space import Architecture
from magicbert.stages.plan_facts import Rows
from magicbert.supernet.objective import Objective
from magicbert.training.module import StepPlan, TrainingModule

WIDTHS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Device = Literal["auto", "cpu", "cuda"]


def forward_memory(
    supernet: Rehearsal,
    config: PretrainConfig | RetrainConfig,
    alignment: AlignmentSection,
    rows: Rows,
    device: Device,
    taught: Objective | None = None,
) -> ForwardMemory:
    """Returns what one micro-batch needs on the path that keeps most.

    Args:
        supernet: is cast to the training precision.
        config: of the run.
        alignment: with MAGIC-A the anchor's block outputs stay beside the path's.
        rows: sizes of a row.
        device: whose kernels count.
        taught: the objective, if a teacher is in it.
    """
    training = config.training
    supernet.to(WIDTHS[training.precision])
    module = TrainingModule(supernet, taught or build_objective(config.objective), alignment)
    module.train()
    batch = rehearsal_batch(training.rows_per_micro_batch, rows.length, config.masking.probability)
    with fused_kernels(config.model, device):
        path = heaviest_path(supernet, training.rows_per_micro_batch, rows.length)
        plan = StepPlan(0, path, path if alignment.enabled else None, 1, 1)
        run = partial(module, batch, plan)
        kept = kept_bytes(run, module.parameters())
        if taught:
            # The logits of both stand there whole; the teacher's states are let go at the end.
            return ForwardMemory(kept, max(peak_bytes(run) - kept, 0))
    return ForwardMemory(kept, head_bytes(supernet, len(batch.labels), device))


def head_bytes(supernet: Rehearsal, num_predicted: int, device: Device) -> int:
    """Returns what the head needs for a moment: logits of a chunk, then its scaled gradients."""
    tokens = supernet.embeddings.tokens.weight
    backend: Backend = "triton" if is_on_gpu(device) else "torch"
    logits = scratch_bytes(num_predicted, len(tokens), tokens.dtype, backend)
    return max(logits, tokens.nbytes)


def fused_kernels(model: ModelSection, device: Device) -> FusedKernels:
    """Returns the stand-ins for what runs on a device.

    A GPU fuses attention and dropout; a CPU attention alone, and only without dropout in it.
    """
    is_gpu = is_on_gpu(device)
    is_fused = is_gpu or model.attention_dropout == 0.0
    return FusedKernels(
        attention=fused_attention if is_fused else written_out_attention, dropout=is_gpu
    )


def written_out_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Stands in for what the encoder does on a CPU where attention has dropout."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return host_attention(query, key, value, attn_mask, dropout_p).transpose(1, 2)


def is_on_gpu(device: Device) -> bool:
    """Whether the run is planned for GPUs."""
    return torch.cuda.is_available() if device == "auto" else device == "cuda"


def heaviest_path(supernet: Rehearsal, num_rows: int, length: int) -> Architecture:
    """Returns the path whose operators keep most for the backward.

    A path that is the only one may have layers of several widths; others have one.
    """
    if supernet.space.count() == 1:
        return next(iter(supernet.space.enumerate()))
    dtype = supernet.embeddings.tokens.weight.dtype
    shape = (num_rows, length, supernet.config.hidden_size)
    hidden = torch.empty(shape, dtype=dtype, device=NO_MEMORY, requires_grad=True)
    segments = Segments.full(length, NO_MEMORY)
    kept: dict[str, int] = {}
    for layer, names in enumerate(supernet.space.layers):
        for name in names:
            if name not in kept:
                operator = supernet.operator(layer, name)
                run = partial(operator, hidden, segments)
                kept[name] = kept_bytes(run, operator.parameters())
    return Architecture(tuple(max(names, key=kept.__getitem__) for names in supernet.space.layers))
