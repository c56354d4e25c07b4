from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bert_examples import FULL, OPERATORS, PACKED, PADDED, batch, config, randomise, supernet
from torch import Tensor

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet, build_supernet
from magicbert.config.sections import ModelSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace

PATH = Architecture.parse("mha2-conv3-ffn24-conv5x24")


def test_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (supernet(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embeddings.tokens.weight"], other["embeddings.tokens.weight"])
    name = "layers.0.ffn.inner.weight"
    assert not torch.equal(first[name], other[name])


def test_layers_and_operators_start_differently() -> None:
    weights = supernet().state_dict()
    first = weights["layers.0.mha2.query_key_value.weight"]
    assert not torch.equal(first, weights["layers.1.mha2.query_key_value.weight"])
    assert not torch.equal(first, weights["layers.0.mha4.query_key_value.weight"])


def test_a_path_starts_as_it_would_alone() -> None:
    """Weights do not depend on which other candidates exist."""
    path = supernet(seed=7).path_state(PATH)
    alone = BertSupernet(SearchSpace.of(PATH), config(), seed=7).state_dict()
    assert path.keys() == alone.keys()
    assert all(torch.equal(path[name], alone[name]) for name in alone)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    supernet()
    assert torch.equal(torch.rand(1), expected)


def test_initial_scale() -> None:
    built = BertSupernet(
        SearchSpace.uniform(1, ("mha4", "ffn", "conv3")),
        config(hidden_size=128, initializer_range=0.02),
        seed=0,
    )
    weights = built.state_dict()
    stds = {
        "layers.0.ffn.inner.weight": 0.02,
        "layers.0.mha4.query_key_value.weight": (2 / 256) ** 0.5 / 2**0.5,
        "layers.0.mha4.output.weight": (2 / 256) ** 0.5,
        "layers.0.conv3.first.depthwise.weight": (4 * 0.9 / (3 * 128)) ** 0.5,
        "layers.0.conv3.first.pointwise.weight": (4 * 0.9 / 128) ** 0.5,
        "embeddings.tokens.weight": 0.02,
    }
    for name, std in stds.items():
        assert weights[name].std().item() == pytest.approx(std, rel=0.15), name
    for name, value in weights.items():
        if name.endswith("bias"):
            assert not value.any(), name


def test_an_operator_that_does_not_fit_is_refused() -> None:
    space = SearchSpace.uniform(2, ("mha5", "ffn", "fnn"))
    with pytest.raises(UserError) as error:
        build_supernet(space, ModelSection(hidden_size=128), 100, 0, seed=0)
    assert "5 heads do not divide hidden size 128" in str(error.value)
    assert "did you mean 'ffn'" in str(error.value)


def test_sizes_come_from_the_configuration() -> None:
    section = ModelSection(
        hidden_size=32, max_length=40, dropout=0.2, attention_dropout=0.3, initializer_range=0.05
    )
    built = build_supernet(SearchSpace.uniform(1, ("mha2",)), section, 90, 5, seed=0)
    attention = built.operator(0, "mha2")
    assert attention.attention_dropout == 0.3
    assert attention.dropout.p == built.embeddings.dropout.p == 0.2
    assert built.embeddings.positions.weight.shape == (40, 32)
    assert built.embeddings.tokens.weight.shape == (90, 32)
    assert built.config.pad_token_id == 5


def test_only_the_path_gets_gradients() -> None:
    model, objective = supernet(), MaskedLanguageModeling()
    objective(model, batch(FULL), PATH).loss_sum.backward()
    for layer, name in enumerate(PATH):
        for candidate in OPERATORS:
            gradients = [p.grad for _, p in model.operator_parameters(layer, candidate)]
            assert all((grad is not None) == (candidate == name) for grad in gradients)
    assert all(p.grad is not None for _, p in model.shared_parameters())


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED])
def test_objective_equals_cross_entropy_over_all_positions(ids: torch.Tensor) -> None:
    model, given = randomise(supernet()).eval(), batch(ids)
    result = MaskedLanguageModeling()(model, given, PATH, block_ends=(2, 4))
    labels = torch.full(ids.shape, -100)
    labels.view(-1)[given.predicted_positions] = given.labels
    logits = model.predict(model(given, PATH).hidden)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(result.loss_sum, expected)
    correct = (logits.argmax(-1) == labels).sum()
    assert result.metrics["correct"] == correct
    assert result.count == 6
    assert len(result.output.block_outputs) == 2
    assert torch.equal(result.output.block_outputs[1], result.output.hidden)


def test_head_runs_at_predicted_positions_only() -> None:
    model, seen = supernet(), []
    model.transform.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    MaskedLanguageModeling()(model, batch(FULL), PATH)
    assert seen == [(6, 16)]


def test_a_batch_without_targets_has_zero_loss() -> None:
    model = supernet()
    result = MaskedLanguageModeling()(model, batch(FULL, num_predicted=0), PATH)
    result.loss_sum.backward()
    assert result.count == 0
    assert result.loss_sum.item() == 0.0


def test_counts_leave_padding_out() -> None:
    objective = MaskedLanguageModeling()
    assert objective.num_tokens(batch(PADDED)) == 14 + 9
    assert objective.num_tokens(batch(PACKED)) == 14 + 11
    assert objective.count(batch(PADDED, num_predicted=4)) == 4


def test_valid_positions_are_those_without_padding() -> None:
    model = supernet()
    assert model(batch(FULL), PATH).valid is None
    assert torch.equal(model(batch(PADDED), PATH).valid, PADDED > 0)


def test_training_learns() -> None:
    torch.manual_seed(0)
    model, given = supernet(initializer_range=0.02), batch(FULL)
    objective = MaskedLanguageModeling()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    generator = np.random.default_rng(0)
    for _ in range(60):
        result = objective(model, given, model.space.sample(generator))
        optimizer.zero_grad()
        result.loss_sum.backward()
        optimizer.step()
        losses.append(result.loss_sum.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED])
def test_a_step_in_autocast_is_close_to_one_in_fp32(ids: Tensor) -> None:
    """Also where bf16 is computed by way of fp32: the numbers are those of bf16."""
    model = supernet().train()
    model.config.hidden_dropout_prob = 0.0
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0
    results = []
    for is_narrow in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_narrow):
            output = MaskedLanguageModeling()(model, batch(ids), PATH)
        output.loss_sum.backward()
        gradient = model.embeddings.tokens.weight.grad
        assert output.loss_sum.dtype == gradient.dtype == torch.float32
        results.append((output.loss_sum.detach(), gradient.clone()))
    (loss, gradient), (narrow_loss, narrow_gradient) = results
    assert not torch.equal(loss, narrow_loss)
    torch.testing.assert_close(narrow_loss, loss, rtol=0.05, atol=0)
    assert (narrow_gradient - gradient).norm() < 0.1 * gradient.norm()
