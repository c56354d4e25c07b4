"""The multiplications of a whole training step, counted, against the formula.

Useful tokens only: no work on padding when rows are packed, no head where nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from bert_examples import batch, segment_ids, supernet
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from magicbert.bench.step.flops import bert_step_flops, head_flops
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.space import Architecture

HIDDEN, VOCABULARY = 16, 60
LENGTH = 14
BERT = Architecture(("mha2", "ffn") * 2)
FULL = segment_ids(*((LENGTH,),) * 3)
PACKED = segment_ids((5, 9), (4, 7, 3), (1, 2, 11))


def counted(ids: torch.Tensor, path: Architecture, num_predicted: int, **sizes: object) -> int:
    """Returns the FLOPs of forward and backward, with attention written as two products.

    Without those of convolutions, which torch counts wrongly in the backward of one filter a
    channel, and only where a library does them.
    """
    model = supernet(len(path.operators), **sizes).train()
    tokens = batch(ids, num_predicted=num_predicted)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        MaskedLanguageModeling()(model, tokens, path).loss_sum.backward()
    counts = counter.get_flop_counts()["Global"]
    return sum(number for name, number in counts.items() if "convolution" not in str(name))


def formula(lengths: Sequence[int], num_predicted: int) -> int:
    return bert_step_flops(2, HIDDEN, VOCABULARY, lengths, num_predicted)


@pytest.mark.parametrize("num_predicted", [1, 6])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_bert_step_costs_what_the_formula_says(num_predicted, dropout):
    sizes = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    found = counted(FULL, BERT, num_predicted, **sizes)
    assert found == formula([LENGTH] * 3, num_predicted)


def test_packed_rows_hold_no_work_on_padding():
    """The same documents, packed and each in a padded row of its own: only the second pays.

    On a CPU attention multiplies whole rows and masks what belongs to another document.
    """
    lengths = [5, 9, 4, 7, 3, 1, 2, 11]
    assert sum(lengths) == PACKED.numel()
    packed = counted(PACKED, BERT, 6)
    padded = counted(segment_ids(*((length,) for length in lengths)), BERT, 6)
    assert packed == formula([LENGTH] * 3, 6)
    assert padded == formula([LENGTH] * 8, 6)


@pytest.mark.parametrize("name", ["mha4", "ffn", "ffn24", "conv3", "conv5x24"])
def test_every_operator_costs_what_it_says(name):
    """Three times its forward; the taps of a depthwise convolution are no matrix product."""
    path = Architecture((name,) * 2)
    operator = supernet(2).layers[0][name]
    taps = sum(
        2 * FULL.numel() * module.weight.numel()
        for module in operator.modules()
        if type(module).__name__ == "DepthwiseConvolution"
    )
    expected = 3 * 2 * (operator.flops(LENGTH) * len(FULL) - taps) + head_flops(
        HIDDEN, VOCABULARY, 6
    )
    assert counted(FULL, path, 6) == expected
