"""Rows of one batch on paths of their own: the same as one path after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from bert_examples import OPERATORS, batch, config, randomise, segment_ids
from torch import Tensor, nn
from toy_tenant import ToyBatch, ToySupernet, toy_space

from magicbert.bert.modeling.segments import Segments
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.row_groups import group_rows
from magicbert.supernet.supernet import Supernet

BERT_OPERATORS = (*OPERATORS, "conv5", "conv7", "conv3x24")
FULL = segment_ids(*[(14,)] * 6)
PADDED = segment_ids((14,), (9,), (1,), (14,), (2,), (13,))
PACKED = segment_ids((5, 9), (4, 4, 3), (14,), (1, 1), (7,), (2, 3, 4, 5))


def bert(num_layers: int = 3) -> BertSupernet:
    built = BertSupernet(SearchSpace.uniform(num_layers, BERT_OPERATORS), config(), 0)
    return randomise(built).eval()


def drawn(space: SearchSpace, num_rows: int, seed: int = 0) -> list[Architecture]:
    generator = np.random.default_rng(seed)
    return [space.sample(generator) for _ in range(num_rows)]


def row_of(given: TokenBatch, row: int) -> TokenBatch:
    nothing = torch.zeros(0, dtype=torch.long)
    chosen = slice(row, row + 1)
    return TokenBatch(given.input_ids[chosen], given.segment_ids[chosen], nothing, nothing, (row,))


def one_by_one(model: Supernet, given: TokenBatch, paths: Sequence[Architecture]) -> Tensor:
    rows = [model(row_of(given, row), path).hidden for row, path in enumerate(paths)]
    return torch.cat(rows)


def assert_equal_where_valid(mixed: Tensor, expected: Tensor, ids: Tensor) -> None:
    torch.testing.assert_close(mixed[ids > 0], expected[ids > 0], rtol=1e-5, atol=1e-5)


def toy_batch(num_rows: int) -> ToyBatch:
    generator = torch.Generator().manual_seed(1)
    return ToyBatch(
        torch.randn(num_rows, 8, generator=generator), torch.zeros(num_rows, dtype=torch.long)
    )


def test_rows_are_grouped_by_operator() -> None:
    paths = [Architecture.parse(text) for text in ("a-c", "b-c", "a-c", "b-c", "a-c")]
    first, second = group_rows(paths, torch.device("cpu"))
    assert [(group.names, group.sizes) for group in first.groups] == [
        (("a",), (3,)),
        (("b",), (2,)),
    ]
    assert [group.rows.tolist() for group in first.groups] == [[0, 2, 4], [1, 3]]
    assert (first.only_operator, second.only_operator) == (None, "c")
    rows = torch.arange(5.0)
    assert torch.equal(first.restore([rows[group.rows] for group in first.groups]), rows)


def test_operators_of_a_family_stand_together() -> None:
    paths = [Architecture((name,)) for name in ("x1", "y1", "x2", "x1", "y2", "x2", "x3", "z1")]
    (layer,) = group_rows(paths, torch.device("cpu"), lambda layer, name: name[0])
    xs, ys, zs = layer.groups
    assert (xs.names, xs.sizes, ys.names, zs.names) == (
        ("x1", "x2", "x3"), (2, 2, 1), ("y1", "y2"), ("z1",),
    )  # fmt: skip
    assert xs.rows.tolist() == [0, 3, 2, 5, 6]
    assert xs.operator_ids.tolist() == [0, 0, 1, 1, 2]
    assert xs.ends.tolist() == [2, 4, 5]
    assert (ys.operator_ids.tolist(), zs.ends.tolist()) == ([0, 1], [1])
    rows = torch.arange(8)
    assert torch.equal(layer.restore([group.rows for group in layer.groups]), rows)


def test_the_core_needs_no_tenant_code_where_there_is_no_context() -> None:
    torch.manual_seed(0)
    model, given = ToySupernet(toy_space()), toy_batch(9)
    paths = drawn(model.space, 9)
    output = model.forward_rows(given, paths, block_ends=(1, 3))
    for row, path in enumerate(paths):
        alone = ToyBatch(given.inputs[row : row + 1], given.targets[row : row + 1])
        expected = model(alone, path, block_ends=(1, 3))
        torch.testing.assert_close(output.hidden[row : row + 1], expected.hidden)
        for mixed, block in zip(output.block_outputs, expected.block_outputs, strict=True):
            torch.testing.assert_close(mixed[row : row + 1], block)


def test_gradients_are_those_of_the_paths() -> None:
    torch.manual_seed(0)
    model, given = ToySupernet(toy_space()).double(), toy_batch(8)
    given = ToyBatch(given.inputs.double(), given.targets)
    paths = drawn(model.space, 8, seed=3)
    parameters = [p for p in model.parameters() if p is not model.head.weight]
    mixed = torch.autograd.grad(
        model.forward_rows(given, paths).hidden.square().sum(), parameters, allow_unused=True
    )
    total = sum(
        model(ToyBatch(given.inputs[row : row + 1], given.targets[row : row + 1]), path)
        .hidden.square()
        .sum()
        for row, path in enumerate(paths)
    )
    expected = torch.autograd.grad(total, parameters, allow_unused=True)
    for ours, other in zip(mixed, expected, strict=True):
        assert (ours is None) == (other is None)
        if ours is not None:
            torch.testing.assert_close(ours, other)


def test_a_context_without_row_selection_is_refused() -> None:
    class WithContext(ToySupernet):
        def enter(self, batch: ToyBatch) -> tuple[Tensor, object]:
            return self.embed(batch.inputs), {"something": 1}

    model = WithContext(toy_space(1))
    same = [Architecture(("small",))] * 2
    assert model.forward_rows(toy_batch(2), same).hidden.shape == (2, 8)
    with pytest.raises(NotImplementedError, match="select_rows"):
        model.forward_rows(toy_batch(2), [same[0], Architecture(("large",))])


def test_wrong_paths_are_refused() -> None:
    model, path = ToySupernet(toy_space()), Architecture(("small",) * 3)
    with pytest.raises(UserError, match="1 architectures for 2 rows"):
        model.forward_rows(toy_batch(2), [path])
    with pytest.raises(UserError, match="layer 1 is 'huge'"):
        model.forward_rows(toy_batch(2), [path, path.replace(1, "huge")])
    assert model.forward_rows(toy_batch(0), [], block_ends=(1, 2)).hidden.shape == (0, 8)


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_bert_rows_equal_one_path_after_the_other(ids: Tensor, with_gradient: bool) -> None:
    model, given = bert(), batch(ids)
    paths = drawn(model.space, len(ids), seed=2)
    with torch.set_grad_enabled(with_gradient):
        output = model.forward_rows(given, paths)
        assert_equal_where_valid(output.hidden, one_by_one(model, given, paths), ids)
    assert (output.valid is None) == bool((ids > 0).all())


@pytest.mark.parametrize("name", BERT_OPERATORS)
def test_bert_rows_that_all_take_one_operator(name: str) -> None:
    model, given = bert(1), batch(PACKED)
    path = Architecture((name,))
    with torch.no_grad():
        mixed = model.forward_rows(given, [path] * len(PACKED)).hidden
        assert torch.equal(mixed, model(given, path).hidden)


@pytest.mark.parametrize("ids", [PADDED, PACKED], ids=["padded", "packed"])
def test_bert_rows_of_one_operator_each(ids: Tensor) -> None:
    model, given = bert(1), batch(ids)
    paths = [Architecture((name,)) for name in ("conv7", "mha2", "conv3", "conv5", "ffn", "mha4")]
    with torch.no_grad():
        mixed = model.forward_rows(given, paths).hidden
        assert_equal_where_valid(mixed, one_by_one(model, given, paths), ids)


def test_bert_rows_do_not_depend_on_their_places() -> None:
    model, given = bert(), batch(PACKED)
    paths = drawn(model.space, len(PACKED), seed=5)
    places = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = TokenBatch(
        given.input_ids[places], given.segment_ids[places], given.predicted_positions,
        given.labels, given.sample_ids,
    )  # fmt: skip
    with torch.no_grad():
        mixed = model.forward_rows(given, paths).hidden
        again = model.forward_rows(moved, [paths[place] for place in places.tolist()]).hidden
    assert_equal_where_valid(again, mixed[places], PACKED[places])


def test_another_rows_tokens_and_path_change_nothing() -> None:
    model, given = bert(), batch(PADDED)
    paths = drawn(model.space, len(PADDED), seed=7)
    tokens = given.input_ids.clone()
    tokens[0] = tokens[0].roll(3)
    other = TokenBatch(
        tokens, given.segment_ids, given.predicted_positions, given.labels, given.sample_ids
    )
    with torch.no_grad():
        before = model.forward_rows(given, paths).hidden
        after = model.forward_rows(other, paths).hidden
        changed = model.forward_rows(given, [drawn(model.space, 1, seed=8)[0], *paths[1:]]).hidden
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:][PADDED[1:] > 0], after[1:][PADDED[1:] > 0])
    assert_equal_where_valid(changed[1:], before[1:], PADDED[1:])


def test_modules_are_called_once_per_operator_and_layer() -> None:
    """The loop costs one call per operator that has rows, not one per row."""
    model, calls = ToySupernet(toy_space(2)), []
    for module in model.layers.modules():
        if not isinstance(module, nn.ModuleDict | nn.ModuleList):
            module.register_forward_hook(lambda part, *_: calls.append(part))
    paths = [Architecture(("small", "large")), Architecture(("middle", "large"))] * 3
    model.forward_rows(toy_batch(6), paths)
    operators = [model.operator(0, "small"), model.operator(0, "middle")]
    operators.append(model.operator(1, "large"))
    assert [part for part in calls if part in operators] == operators


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
def test_selected_segments_are_those_of_the_rows(ids: Tensor) -> None:
    rows = torch.tensor([4, 1, 5])
    chosen, direct = Segments.of_ids(ids).select(rows), Segments.of_ids(ids[rows])
    assert torch.equal(chosen.position_ids.expand(3, -1), direct.position_ids.expand(3, -1))
    hidden = torch.ones(3, ids.shape[1], 2)
    assert torch.equal(chosen.hide_padding(hidden), direct.hide_padding(hidden))
    for offset in (1, 3):
        ours, other = (part.linked(offset, torch.float32) for part in (chosen, direct))
        if ours is not None and other is not None:
            assert torch.equal(ours, other)
