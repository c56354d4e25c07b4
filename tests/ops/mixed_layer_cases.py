"""A BERT supernet whose rows take paths of their own, on Triton; run by its interpreter or a GPU.

Run by test_mixed_operators_kernel.py, in a process of its own.
"""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import torch
from bert_examples import batch, config, randomise, segment_ids
from torch.utils._python_dispatch import TorchDispatchMode

from magicbert.bert import supernet as bert_supernet
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
CONVOLUTIONS = ("conv3", "conv5", "conv7", "conv3x24", "conv5x24", "conv3x32")
OPERATORS = (*CONVOLUTIONS, "mha2", "ffn")
FULL = segment_ids(*[(6,)] * 5, length=6)
PADDED = segment_ids((6,), (4,), (1,), (6,), (2,), length=6)
PACKED = segment_ids((2, 4), (1, 1, 3), (6,), (1, 1), (5,), length=6)


def supernet(num_layers: int, backend: str) -> BertSupernet:
    space = SearchSpace.uniform(num_layers, OPERATORS)
    built = BertSupernet(space, config(backend=backend), 0)
    return randomise(built).eval().to(DEVICE)


def mixed_and_expected(paths, ids, given=None):
    """Returns what Triton's mixed layers and plain torch's loop make of the same rows."""
    given = batch(ids) if given is None else given
    with torch.no_grad():
        mixed = supernet(len(paths[0]), "triton").forward_rows(given.to(DEVICE), paths).hidden
        plain = supernet(len(paths[0]), "torch").forward_rows(given.to(DEVICE), paths).hidden
    return mixed[ids > 0], plain[ids > 0]


def paths_of(*names):
    return [Architecture(tuple(name.split("-"))) for name in names]


@pytest.fixture
def runs(monkeypatch):
    """Which candidates were run together."""
    found = []

    class Watched(bert_supernet.MixedConvolutions):
        def run(self, candidates, hidden_RSH):
            found.append((len(candidates), self.operators.sizes))
            return super().run(candidates, hidden_RSH)

    monkeypatch.setattr(bert_supernet, "MixedConvolutions", Watched)
    return found


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
def test_stacked_and_widened_rows_of_one_layer(ids, runs):
    paths = paths_of("conv3", "conv5x24", "conv7", "conv3x24", "conv3")
    torch.testing.assert_close(*mixed_and_expected(paths, ids), rtol=1e-5, atol=1e-5)
    assert sorted(runs) == [(2, (1, 1)), (2, (2, 1))]


def test_random_paths_through_all_operators(runs):
    generator = np.random.default_rng(0)
    space = SearchSpace.uniform(3, OPERATORS)
    paths = [space.sample(generator) for _ in range(5)]
    torch.testing.assert_close(*mixed_and_expected(paths, PACKED), rtol=1e-5, atol=1e-5)
    assert runs


def test_sizes_that_differ_are_not_mixed(runs):
    paths = paths_of("conv3x24", "conv3x32", "mha2", "ffn", "conv3")
    torch.testing.assert_close(*mixed_and_expected(paths, PADDED), rtol=1e-5, atol=1e-5)
    assert not runs


class Launches(TorchDispatchMode):
    """Counts the mixed kernels' operators."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        self.counts[name] += name.startswith("magicbert::mixed")
        return function(*args, **(kwargs or {}))


def test_launches_do_not_grow_with_candidates_and_rows_get_the_same_anywhere(runs):
    paths = paths_of("conv3", "conv5", "conv5", "conv7", "conv3")
    given, places = batch(PACKED), torch.tensor([2, 4, 0, 1, 3])
    moved = TokenBatch(
        given.input_ids[places], PACKED[places], given.predicted_positions, given.labels,
        given.sample_ids,
    )  # fmt: skip
    model = supernet(1, "triton")
    with torch.no_grad():
        with Launches() as launches:
            first = model.forward_rows(given.to(DEVICE), paths).hidden
        second = model.forward_rows(moved.to(DEVICE), [paths[p] for p in places.tolist()]).hidden
    counted = PACKED[places] > 0
    torch.testing.assert_close(second[counted], first[places][counted], rtol=1e-6, atol=1e-6)
    assert [sizes for _, sizes in runs] == [(2, 2, 1)] * 2
    assert +launches.counts == {
        "magicbert::mixed_depthwise_forward": 2, "magicbert::mixed_gelu_norm_forward": 2,
    }  # fmt: skip


def test_gradients_and_training_take_the_loop(runs):
    model, paths = supernet(1, "triton"), paths_of("conv3", "conv5", "conv5", "ffn", "conv3")
    hidden = model.forward_rows(batch(PACKED).to(DEVICE), paths).hidden
    assert hidden.requires_grad
    model.train()
    with torch.no_grad():
        model.forward_rows(batch(PACKED).to(DEVICE), paths)
    assert not runs
