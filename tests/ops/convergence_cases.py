"""Training with and without the kernels from one seed: the losses are the same.

Run by test_encoder_kernels.py. A supernet of 2 layers and hidden size 32 learns, along a path
that changes at every step and is drawn to an anchor, to restore hidden tokens of documents: 128
positions a step, so that Triton's interpreter is fast enough.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from magicbert.bert.modeling import fused
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet
from magicbert.config.sections import AlignmentSection
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace
from magicbert.training.module import StepPlan, TrainingModule

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
NUM_STEPS = 12 if DEVICE.type == "cpu" else 300
SPACE = SearchSpace.uniform(2, ("mha4", "ffn", "conv3", "conv5x48"))
# Few convolutions: the interpreter takes milliseconds for every position that one passes.
PATHS = tuple(
    Architecture.parse(path)
    for path in ("mha4-ffn", "ffn-mha4", "mha4-mha4", "conv3-ffn", "ffn-ffn", "mha4-ffn",
                 "ffn-mha4", "mha4-conv5x48", "mha4-mha4", "mha4-ffn")
)  # fmt: skip
ANCHOR = PATHS[0]
EARLY = 12  # steps in which rounding has not yet had time to grow
VOCABULARY, MASK = 24, 1
LENGTHS = ((32,), (20,), (12, 20), (9, 11, 8))  # 128 positions: full, padded and packed rows


def training_batch(step: int) -> TokenBatch:
    """Returns documents that repeat one token, small ones more often; 1 token of 4 is hidden."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.zeros(len(LENGTHS), 32, dtype=torch.long)
    ids = torch.zeros_like(tokens)
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for number, size in enumerate(lengths, 1):
            drawn = torch.rand((), generator=generator) ** 2
            tokens[row, start : start + size] = 2 + int((VOCABULARY - 2) * drawn)
            ids[row, start : start + size] = number
            start += size
    is_hidden = (torch.rand(tokens.shape, generator=generator) < 0.25) & (ids > 0)
    positions = is_hidden.flatten().nonzero().flatten()
    labels = tokens.flatten()[positions]
    inputs = tokens.masked_fill(is_hidden, MASK)
    return TokenBatch(inputs, ids, positions, labels, tuple(range(len(LENGTHS)))).to(DEVICE)


def losses(backend: str, dropout: float, num_steps: int = NUM_STEPS) -> Tensor:
    """Trains from one seed; returns task and alignment loss of every step."""
    torch.manual_seed(0)
    encoder = MagicBertConfig(
        architecture="", vocab_size=VOCABULARY, hidden_size=32, max_position_embeddings=32,
        initializer_range=0.1,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=0.0, backend=backend,
    )  # fmt: skip
    supernet = BertSupernet(SPACE, encoder, seed=0).to(DEVICE).train()
    alignment = AlignmentSection(enabled=True, num_blocks=2)
    module = TrainingModule(supernet, MaskedLanguageModeling(), alignment, backend)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    history = []
    for step in range(num_steps):
        batch = training_batch(step % 3)
        path = PATHS[step % len(PATHS)]
        count, valid = len(batch.labels), int((batch.segment_ids > 0).sum())
        total, task, aligned, _ = module(batch, StepPlan(step, path, ANCHOR, count, valid))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        history.append(torch.stack([task, aligned]).detach())
    return torch.stack(history).cpu()


def run_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends the operators' kernels to their references, which share the Philox masks."""

    def referred(kernel: Any, *arguments: Any, backend: str, **options: Any) -> Any:
        return kernel(*arguments, backend="torch", **options)

    for name in ("bias_gelu", "depthwise_convolution", "residual_norm"):
        monkeypatch.setattr(fused, name, functools.partial(referred, getattr(fused, name)))


def test_the_kernels_train_as_plain_torch_does() -> None:
    ours, theirs = losses("triton", 0.0), losses("torch", 0.0)
    torch.testing.assert_close(ours[:EARLY], theirs[:EARLY], rtol=1e-3, atol=1e-4)
    # Later the curves lie on each other, not every point.
    torch.testing.assert_close(ours[-10:].mean(0), theirs[-10:].mean(0), rtol=0.05, atol=0.02)
    assert ours[-3:, 0].mean() < 0.9 * ours[:3, 0].mean()


def test_with_dropout_the_masks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = losses("triton", 0.1, num_steps=2)
    run_references(monkeypatch)
    theirs = losses("triton", 0.1, num_steps=2)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(ours, losses("torch", 0.0, num_steps=2), rtol=0.01)
