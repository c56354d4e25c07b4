"""A path's score: sums over fixed batches, and a supernet left as it was found."""

from __future__ import annotations

import pytest
import torch
from toy_tenant import ToyObjective, ToySource, ToySupernet, toy_space

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.scoring import Score, evaluation_mode, score

PATH = Architecture(("small", "large", "middle"))


def toy() -> ToySupernet:
    torch.manual_seed(0)
    return ToySupernet(toy_space())


def test_score_equals_one_big_batch():
    supernet, objective = toy(), ToyObjective()
    batches = ToySource(rows=16).dev_batches(4)
    result = score(supernet, objective, batches, PATH)
    inputs = torch.cat([b.inputs for b in batches])
    targets = torch.cat([b.targets for b in batches])
    logits = supernet.head(supernet(type(batches[0])(inputs, targets), PATH).hidden)
    counted = targets >= 0
    loss = torch.nn.functional.cross_entropy(logits[counted], targets[counted])
    correct = int((logits.argmax(-1) == targets)[counted].sum())
    assert result.count == int(counted.sum())
    assert result.correct == correct
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.accuracy == correct / result.count


def test_scores_of_parts_add_up():
    supernet, objective = toy(), ToyObjective()
    batches = ToySource(rows=16).dev_batches(3)
    whole = score(supernet, objective, batches, PATH)
    first = score(supernet, objective, batches[:1], PATH)
    parts = first + score(supernet, objective, batches[1:], PATH)
    assert (parts.correct, parts.count) == (whole.correct, whole.count)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)


def test_scoring_leaves_modes_gradients_and_random_numbers_alone():
    supernet = toy().train()
    supernet.operator(0, "small").eval()
    before = [part.training for part in supernet.modules()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    score(supernet, ToyObjective(), ToySource(rows=8).dev_batches(2), PATH)
    assert [part.training for part in supernet.modules()] == before
    assert all(p.grad is None for p in supernet.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_come_back_after_an_error():
    supernet = toy().train()

    def fail() -> None:
        with evaluation_mode(supernet, PATH):
            assert not supernet.training
            assert not any(part.training for part in supernet.path_modules(PATH))
            assert not torch.is_grad_enabled()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert supernet.training
    assert torch.is_grad_enabled()


def test_evaluation_mode_reaches_all_that_a_path_runs():
    supernet, ran = toy().train(), set()
    for part in supernet.modules():
        part.register_forward_hook(lambda module, *_: ran.add(module))
    score(supernet, ToyObjective(), ToySource(rows=8).dev_batches(1), PATH)
    assert ran - {supernet} <= set(supernet.path_modules(PATH))
    assert len(ran) > len(PATH.operators)


def test_nothing_to_predict_and_a_path_of_another_space_are_refused():
    with pytest.raises(UserError, match="nothing to predict"):
        _ = Score(0.0, 0, 0).loss
    with pytest.raises(UserError, match="layer 2 is 'huge'"):
        score(toy(), ToyObjective(), [], Architecture(("small", "small", "huge")))
