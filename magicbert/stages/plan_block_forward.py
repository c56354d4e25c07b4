"""Memory of a block's forward, and of the teacher's ahead of it, on tensors without memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from magicbert.bert.block_supernet import BlockRegression, BlockSupernet, named_at
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.rehearsal import NO_MEMORY
from magicbert.bert.taught_batches import BlockBatch
from magicbert.bert.teacher import Teacher
from magicbert.config.roots import CompressConfig
from magicbert.planning.activations import FusedKernels, fused_attention, kept_bytes
from magicbert.space.blocks import BlockSpace
from magicbert.stages.plan_facts import Rows
from magicbert.stages.plan_forward import WIDTHS, Device, is_on_gpu, written_out_attention
from magicbert.training.module import StepPlan, TrainingModule


@dataclass(frozen=True)
class BlockForward:
    """One micro-batch of a block's training.

    Attributes:
        config: of the stage.
        student: what operators read beside their width.
        rows: sizes of a row.
        device: whose kernels count.
        teacher: without memory.
        sizes: the teacher's widths ahead of the block and after it.
    """

    config: CompressConfig
    student: MagicBertConfig
    rows: Rows
    device: Device
    teacher: Teacher
    sizes: tuple[int, int]

    @property
    def dtype(self) -> torch.dtype:
        """Number format of hidden states: under autocast, that of the products."""
        return WIDTHS[self.config.training.precision]

    @property
    def num_rows(self) -> int:
        """Rows of the micro-batch."""
        return self.config.training.rows_per_micro_batch

    def kept(self) -> int:
        """Returns the bytes that the path that keeps most leaves for the backward."""
        alignment, batch = self.config.alignment, self.batch()
        tokens = batch.num_tokens
        with self.fused():
            supernet = self.heaviest()
            (path,) = (p for p in supernet.blocks.paths.enumerate() if "skip" not in p.operators)
            module = TrainingModule(supernet, BlockRegression(), alignment).train()
            step = StepPlan(0, path, path if alignment.enabled else None, tokens, tokens)
            return kept_bytes(lambda: module(batch, step), module.parameters())

    def teaching(self) -> int:
        """Returns about what the teacher's forward takes: two states and what a layer needs."""
        batch = self.batch()
        return batch.inputs.nbytes + batch.targets.nbytes + self.largest_layer()

    def largest_layer(self) -> int:
        """Returns about what one layer of the teacher needs while it runs."""
        model = self.teacher.model.to(self.dtype)
        widths = (model.config.entry_size, *model.config.widths)
        with FusedKernels(attention=fused_attention, dropout=True):
            layers = zip(model.model.encoder.layers, widths, strict=False)
            return max(self.kept_by(layer, before) for layer, before in layers)

    def batch(self) -> BlockBatch:
        """Returns a micro-batch without memory."""
        inputs, targets = (
            torch.empty(self.num_rows, self.rows.length, width, dtype=self.dtype, device=NO_MEMORY)
            for width in self.sizes
        )
        return BlockBatch(inputs, targets, self.segments(), self.num_rows * self.rows.length)

    def segments(self) -> Segments:
        """Returns the segments of full rows, or of rows that hold several documents."""
        if not self.rows.is_packed:
            return Segments.full(self.rows.length, NO_MEMORY)
        shape = (self.num_rows, self.rows.length)
        ids = torch.empty(shape, dtype=torch.int64, device=NO_MEMORY)
        mask = (ids[:, :, None] == ids[:, None, :])[:, None]
        return Segments(ids, torch.empty_like(ids), None, mask, True)

    def fused(self) -> FusedKernels:
        """Returns the stand-ins for what runs on the planned device, in a block."""
        is_gpu = is_on_gpu(self.device)
        is_fused = is_gpu or self.config.training.attention_dropout == 0.0
        attention = fused_attention if is_fused else written_out_attention
        return FusedKernels(attention=attention, dropout=is_gpu)

    def heaviest(self) -> BlockSupernet:
        """Returns a block of nothing but the operator and width that keep most."""
        blocks, head_size = self.config.blocks, self.config.blocks.head_size
        kept = {}
        for width in blocks.widths:
            for name in blocks.operators:
                with NO_MEMORY:
                    operator = build_operator(named_at(name, width, head_size), self.student)
                kept[width, name] = self.kept_by(operator.to(self.dtype), width)
        width, name = max(kept, key=kept.__getitem__)
        space = BlockSpace((width,), (name,), blocks.layers_per_block)
        with NO_MEMORY:
            supernet = BlockSupernet(space, self.student, head_size, self.sizes, "plan")
        return supernet.to(self.dtype)

    def kept_by(self, operator: Any, width: int) -> int:
        """Returns the bytes that an operator keeps of a micro-batch."""
        shape = (self.num_rows, self.rows.length, width)
        hidden = torch.empty(shape, dtype=self.dtype, device=NO_MEMORY, requires_grad=True)
        return kept_bytes(partial(operator, hidden, self.segments()), operator.parameters())
