"""Interference against the direct computation: whole gradients by autograd, cosine by cosine."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from toy_tenant import OPERATORS, ToyBatch, ToyObjective, ToySupernet

from magicbert.errors import UserError
from magicbert.interference.children import (
    differing_in_layers,
    differing_in_one_layer,
    layers_around,
)
from magicbert.interference.gram import GramMatrix
from magicbert.interference.measuring import (
    Examination,
    mean_of_pairs,
    one_layer_matrices,
    several_layers_curve,
)
from magicbert.interference.probe import InterferenceProbe
from magicbert.space import Architecture, SearchSpace
from magicbert.space.architecture import family_of
from magicbert.space.randomness import keyed_generator

SPACE = SearchSpace.uniform(4, OPERATORS)


def toy() -> ToySupernet:
    torch.manual_seed(0)
    return ToySupernet(SPACE).double()


def batches(count: int = 2) -> list[ToyBatch]:
    generator = torch.Generator().manual_seed(1)
    return [
        ToyBatch(
            torch.randn(6, 8, generator=generator, dtype=torch.float64),
            torch.randint(0, 2, (6,), generator=generator),
        )
        for _ in range(count)
    ]


def examine(supernet: ToySupernet, layer: int, num_contexts: int = 3) -> Examination:
    return Examination(supernet, ToyObjective(), batches(), layer, num_contexts, seed=5)


def direct_cosines(supernet, batch, children, layer):
    """Whole gradients of the shared operator, held side by side."""
    vectors = []
    for child in children:
        operator = supernet.operator(layer, child[layer])
        result = ToyObjective()(supernet, batch, child)
        gradients = torch.autograd.grad(result.loss_sum / result.count, list(operator.parameters()))
        vectors.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return np.array(
        [[float(torch.cosine_similarity(a, b, dim=0)) for b in vectors] for a in vectors]
    )


@pytest.mark.parametrize(("layer", "differing"), [(0, 1), (0, 3), (2, 0), (3, 1)])
def test_matrix_equals_the_direct_computation(layer, differing):
    supernet = toy()
    examination = examine(supernet, layer)
    found = one_layer_matrices(examination, "middle", differing)["gradient"]
    for number, context in examination.contexts("middle"):
        children = differing_in_one_layer(SPACE, context, differing)
        batch = examination.batches[number % 2]
        np.testing.assert_allclose(
            found[number], direct_cosines(supernet, batch, children, layer), atol=1e-12
        )


def test_curve_equals_the_direct_computation():
    supernet = toy()
    examination = examine(supernet, 1)
    curve = several_layers_curve(examination, "small", 3)["gradient"]
    assert curve.shape == (3, 3)
    for number, context in examination.contexts("small"):
        generator = keyed_generator(examination.seed, "interference-offsets", number)
        for m in (1, 2, 3):
            children = differing_in_layers(SPACE, context, layers_around(4, 1)[:m], generator)
            direct = direct_cosines(supernet, examination.batches[number % 2], children, 1)
            expected = mean_of_pairs(direct)
            np.testing.assert_allclose(curve[number, m - 1], expected, atol=1e-12)
    one = several_layers_curve(examination, "small", 1)["gradient"]
    np.testing.assert_allclose(curve[:, :1], one)


def test_an_operator_in_front_of_the_difference_sees_one_input():
    found = one_layer_matrices(examine(toy(), 0), "large", 2)
    np.testing.assert_allclose(found["input"], 1.0, atol=1e-12)
    np.testing.assert_allclose(found["output"], 1.0, atol=1e-12)
    assert found["gradient"].min() < 0.999
    behind = one_layer_matrices(examine(toy(), 2), "large", 0)
    assert behind["input"].min() < 0.999


def test_paths_that_do_not_differ_agree_fully():
    supernet = toy()
    path = Architecture(("small",) * 4)
    cosines = examine(supernet, 0).cosines(0, (path, path))
    for name in ("gradient", "input", "output"):
        np.testing.assert_allclose(cosines[name], 1.0, atol=1e-12)


def test_measuring_leaves_the_supernet_as_it_was():
    supernet = toy().train()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    one_layer_matrices(examine(supernet, 0), "small", 1)
    assert all(part.training for part in supernet.modules())
    assert all(parameter.grad is None for parameter in supernet.parameters())
    assert all(torch.equal(before[n], v) for n, v in supernet.state_dict().items())
    assert not any(part._forward_hooks for part in supernet.modules())


def test_the_probe_compares_whole_gradients_of_what_two_paths_share():
    supernet = toy()
    path = Architecture(("small", "middle", "large", "small"))
    previous = Architecture(("small", "small", "large", "middle"))
    batch = batches(1)[0]
    found = InterferenceProbe(ToyObjective())(supernet, batch, path, previous)
    vectors = []
    for one in (path, previous):
        shared = [*supernet.operator(0, "small").parameters(),
                  *supernet.operator(2, "large").parameters()]  # fmt: skip
        result = ToyObjective()(supernet, batch, one)
        gradients = torch.autograd.grad(result.loss_sum / result.count, shared)
        vectors.append(torch.cat([gradient.flatten() for gradient in gradients]))
    assert found["num_shared"] == 2
    assert found["cosine"] == pytest.approx(float(torch.cosine_similarity(*vectors, dim=0)))
    other = Architecture(("large", "small", "small", "large"))
    nothing = InterferenceProbe(ToyObjective())(supernet, batch, path, other)
    assert nothing == {"cosine": None, "num_shared": 0}


def test_every_two_children_differ_in_every_chosen_layer():
    space = SearchSpace((OPERATORS, (*OPERATORS, "huge"), OPERATORS, ("small",)))
    context = Architecture(("small",) * 4)
    children = differing_in_layers(space, context, (0, 1, 2), np.random.default_rng(0))
    assert len(children) == 3
    for a, b in itertools.combinations(children, 2):
        assert all(a[layer] != b[layer] for layer in (0, 1, 2))
    assert all(child in space for child in children)
    with pytest.raises(UserError, match="layers 4 have one candidate"):
        differing_in_layers(space, context, (0, 3), np.random.default_rng(0))


def test_layers_around_a_shared_one():
    assert layers_around(5, 0) == (1, 2, 3, 4)
    assert layers_around(5, 3) == (4, 2, 1, 0)


@pytest.mark.parametrize(
    ("name", "kind"), [("mha12", "mha"), ("ffn", "ffn"), ("conv3x256", "conv"), ("conv5", "conv")]
)
def test_families(name, kind):
    assert family_of(name) == kind


def test_gram_matrix_adds_parts_up():
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(5, 1000, generator=generator)
    gram = GramMatrix(5)
    for part in vectors.split([1, 499, 500], dim=1):
        gram.add(part)
    direct = torch.stack(
        [
            torch.cosine_similarity(vector[None], vectors.double(), dim=1)
            for vector in vectors.double()
        ]
    )
    torch.testing.assert_close(gram.cosines(), direct, atol=1e-6, rtol=0)


def test_a_gradient_of_zero_has_no_cosine():
    gram = GramMatrix(2)
    gram.add(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    cosines = gram.cosines()
    assert cosines[0].isnan().all()
    assert float(cosines[1, 1]) == pytest.approx(1.0)


def test_mean_of_pairs_leaves_the_diagonal_out():
    assert mean_of_pairs(np.array([[1.0, 0.2, 0.4], [0.2, 1, 0.6], [0.4, 0.6, 1]])) == (
        pytest.approx(0.4)
    )
