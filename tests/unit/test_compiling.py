"""``training.compile``: what is compiled, how often, and that it computes the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small_supernet import NAMES, SPACE, batch, build
from torch._dynamo.utils import counters

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet
from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.scoring import score
from magicbert.training.compiling import check_compiler, compiled_operators

FORMS = ("padded", "packed and padded")


@pytest.fixture(autouse=True)
def _no_code_of_other_tests():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def train(supernet: BertSupernet, number: int, form: str, path: Architecture) -> torch.Tensor:
    supernet.train()
    loss = MaskedLanguageModeling()(supernet, batch(number, form), path).loss_sum
    loss.backward()
    return loss.detach()


def num_compiled() -> int:
    return int(counters["stats"]["unique_graphs"])


def test_nothing_is_compiled_after_each_operator_was_seen_once():
    """200 random paths, with dropout, over two kinds of batches, some of them evaluated."""
    supernet, objective = build(), MaskedLanguageModeling()
    generator = np.random.default_rng(0)
    with compiled_operators(supernet, backend="eager"):
        for form, name in itertools.product(FORMS, NAMES):
            path = Architecture((name,) * 4)
            train(supernet, 0, form, path)
            score(supernet, objective, [batch(0, form)], path)
        # Not one per layer: the four layers share it. No graph is broken, so each is whole.
        assert num_compiled() <= 2 * len(FORMS) * len(NAMES)
        assert not counters["graph_break"]
        with torch.compiler.set_stance("fail_on_recompile"):
            for number in range(200):
                path, form = SPACE.sample(generator), FORMS[number % 2]
                loss = train(supernet, number, form, path)
                supernet.zero_grad()
                if number % 20 == 0:
                    score(supernet, objective, [batch(number, form)], path)
            assert torch.isfinite(loss)


def test_the_order_of_operators_makes_no_difference():
    """What one operator leaves in a batch's segments must not become another's variant."""
    supernet = build(names=("conv3", "conv5"))
    with compiled_operators(supernet, backend="eager"):
        train(supernet, 0, "packed", Architecture(("conv3", "conv5", "conv3", "conv5")))
        before = num_compiled()
        for number, names in enumerate(itertools.product(("conv3", "conv5"), repeat=4)):
            train(supernet, number, "packed", Architecture(names))
    assert before == num_compiled() == 2


@pytest.mark.parametrize("form", ["packed and padded"])
def test_losses_and_gradients_are_those_of_plain_code(form):
    path = Architecture(("mha2", "ffn", "conv3", "conv5"))
    plain, compiled = build(dropout=0.0), build(dropout=0.0)
    expected = train(plain, 1, form, path)
    with compiled_operators(compiled, backend="aot_eager"):
        loss = train(compiled, 1, form, path)
    torch.testing.assert_close(loss, expected)
    for (name, one), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        if one.grad is None:
            assert other.grad is None, name
        else:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)


def test_names_and_states_stay_and_the_forwards_come_back():
    supernet = build()
    before = list(supernet.state_dict())
    operator = supernet.operator(1, "ffn")
    with compiled_operators(supernet, backend="aot_eager"):
        assert list(supernet.state_dict()) == before
        assert "forward" in vars(operator)
    assert "forward" not in vars(operator)
    train(supernet, 0, "full", Architecture(("ffn",) * 4))
    assert num_compiled() == 0


def test_inductor_trains_with_dropout():
    """Real code for a CPU: a seed decides the dropout, and the loss goes down."""
    check_compiler(torch.device("cpu"))
    path, form = Architecture(("conv3",) * 4), "packed and padded"
    supernet = build(names=("conv3",))
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=1e-2)
    losses = []
    with compiled_operators(supernet):
        for seed in (0, 0, *range(1, 15)):
            torch.manual_seed(seed)
            losses.append(float(train(supernet, 0, form, path)))
            if seed:
                optimizer.step()
            optimizer.zero_grad()
    assert losses[0] == losses[1] != losses[2]
    assert losses[-1] < 0.9 * losses[0]
    assert num_compiled() == 1


def test_without_a_compiler_it_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"training\.compile: no C\+\+ compiler found"):
        check_compiler(torch.device("cpu"))
    check_compiler(torch.device("cuda"))
