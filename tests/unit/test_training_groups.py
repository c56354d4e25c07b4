"""One parameter group per (layer, operator) and decay; a path is a set of groups."""

from __future__ import annotations

from toy_tenant import ToySupernet, toy_space

from magicbert.space import Architecture
from magicbert.training.path_sparse.groups import GroupIndex, parameter_groups
from magicbert.training.path_sparse.placement import Piece, cut_group


def test_every_parameter_is_in_exactly_one_group() -> None:
    supernet = ToySupernet(toy_space())
    grouped = [id(p) for group in parameter_groups(supernet, 0.1) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in supernet.parameters()}


def test_norms_and_biases_are_not_decayed() -> None:
    supernet = ToySupernet(toy_space())
    names = {id(p): name for name, p in supernet.named_parameters()}
    for group in parameter_groups(supernet, 0.1):
        for parameter in group["params"]:
            name = names[id(parameter)]
            is_plain = name.endswith("bias") or "norm" in name
            assert group["weight_decay"] == (0.0 if is_plain else 0.1), name


def test_groups_carry_the_names_of_their_parameters() -> None:
    supernet = ToySupernet(toy_space())
    named = dict(supernet.named_parameters())
    for group in parameter_groups(supernet, 0.1):
        found = [named[name] for name in group["parameter_names"]]
        assert [id(p) for p in found] == [id(p) for p in group["params"]], group["name"]


def test_a_group_is_cut_at_partition_edges_and_padding_is_left_out() -> None:
    # Two parameters, 5 and 4 values, the second after one value of padding; windows of 6.
    cut = [cut_group((1, 0), (5, 4), (0, 6), window) for window in ((0, 6), (6, 12))]
    assert cut == [(Piece(1, 0, 5, 0),), (Piece(0, 0, 4, 0),)]
    crossing = cut_group((0, 1), (5, 4), (0, 5), (3, 6))
    assert crossing == (Piece(0, 3, 2, 0), Piece(1, 0, 1, 2))


def test_a_path_is_its_operators_and_what_is_shared() -> None:
    supernet = ToySupernet(toy_space())
    index = GroupIndex.of(parameter_groups(supernet, 0.1))
    path = Architecture(("small", "large", "small"))
    owners = {index.names[number].split("/")[0] for number in index.of_path(path)}
    assert owners == {"shared", "layers.0.small", "layers.1.large", "layers.2.small"}
    assert len(index.of_path(path)) == 8  # decayed and plain of each


def test_a_tied_weight_is_grouped_once() -> None:
    supernet = ToySupernet(toy_space())
    supernet.head.weight = supernet.embed.weight
    grouped = [p for group in parameter_groups(supernet, 0.1) for p in group["params"]]
    assert sum(p is supernet.embed.weight for p in grouped) == 1
