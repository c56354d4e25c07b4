from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from bert_examples import LENGTH, PADDED, VOCABULARY, config, randomise
from safetensors.torch import load_file

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import (
    MagicBertForMaskedLM,
    MagicBertForQuestionAnswering,
    MagicBertForSequenceClassification,
    MagicBertForTokenClassification,
    MagicBertModel,
)

ARCHITECTURE = "mha2-conv3-ffn-conv5x24"
MODELS = (
    MagicBertModel,
    MagicBertForMaskedLM,
    MagicBertForSequenceClassification,
    MagicBertForTokenClassification,
    MagicBertForQuestionAnswering,
)
MASK = (PADDED > 0).long()


def build(kind: type, **sizes: object) -> torch.nn.Module:
    return randomise(kind(config(ARCHITECTURE, **sizes))).eval()


def tokens() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, VOCABULARY, (2, LENGTH), generator=generator)


@pytest.mark.parametrize("kind", MODELS)
def test_save_and_reload(kind: type, tmp_path: Path) -> None:
    model = build(kind)
    model.save_pretrained(tmp_path)
    loaded, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for one, other in zip(model(tokens()).to_tuple(), loaded(tokens()).to_tuple(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_by_name_and_as_tuple(kind: type) -> None:
    model = build(kind)
    named = model(tokens(), MASK)
    plain = model(tokens(), MASK, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], named[0])


def test_token_type_ids_are_ignored() -> None:
    model = build(MagicBertModel)
    plain = model(tokens(), MASK).last_hidden_state
    typed = model(tokens(), MASK, token_type_ids=torch.ones(2, LENGTH, dtype=torch.long))
    assert torch.equal(plain, typed.last_hidden_state)


def test_a_mask_of_ones_and_of_booleans() -> None:
    model = build(MagicBertModel)
    plain = model(tokens()).last_hidden_state
    ones = model(tokens(), torch.ones(2, LENGTH)).last_hidden_state
    assert torch.equal(plain, ones)
    masked = model(tokens(), MASK).last_hidden_state
    assert torch.equal(masked, model(tokens(), MASK.bool()).last_hidden_state)
    assert not torch.allclose(plain[1, :9], masked[1, :9])


def test_inputs_embeds_and_position_ids_replace_the_tables() -> None:
    model = build(MagicBertModel)
    expected = model(tokens(), MASK).last_hidden_state
    embedded = model.get_input_embeddings()(tokens())
    positions = torch.arange(LENGTH).expand(2, -1)
    given = model(None, MASK, inputs_embeds=embedded, position_ids=positions)
    assert torch.equal(given.last_hidden_state, expected)
    moved = model(tokens(), MASK, position_ids=positions + 3).last_hidden_state
    assert not torch.allclose(moved, expected)


def test_hidden_states() -> None:
    output = build(MagicBertForMaskedLM)(tokens(), MASK, output_hidden_states=True)
    assert len(output.hidden_states) == 5
    model = build(MagicBertModel)
    output = model(tokens(), MASK, output_hidden_states=True)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert not output.hidden_states[0][MASK == 0].any()
    assert model(tokens()).hidden_states is None


def test_bad_input_is_explained() -> None:
    model = build(MagicBertModel)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(tokens(), inputs_embeds=torch.zeros(2, LENGTH, 16))
    with pytest.raises(ValueError, match=r"attention_mask must .* \[2, 14\], got \[2, 3\]"):
        model(tokens(), torch.ones(2, 3))
    with pytest.raises(ValueError, match="21 tokens is longer than the 20 positions"):
        model(torch.ones(1, 21, dtype=torch.long))
    with pytest.raises(ValueError, match="output_attentions is not offered"):
        model(tokens(), output_attentions=True)
    with pytest.raises(ValueError, match="did you mean 'ffn'"):
        MagicBertModel(config("mha2-fnn"))


def test_masked_language_loss() -> None:
    model = build(MagicBertForMaskedLM)
    labels = torch.full((2, LENGTH), -100)
    labels[0, 3], labels[1, 5] = 7, 8
    output = model(tokens(), MASK, labels=labels)
    expected = F.cross_entropy(
        torch.stack([output.logits[0, 3], output.logits[1, 5]]), torch.tensor([7, 8])
    )
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem"),
    [
        (1, torch.tensor([0.5, 2.0]), "regression"),
        (3, torch.tensor([2, 0]), "single_label_classification"),
        (3, torch.tensor([[1.0, 0, 1], [0, 0, 1]]), "multi_label_classification"),
    ],
)
def test_classification_problems(num_labels: int, labels: torch.Tensor, problem: str) -> None:
    model = build(MagicBertForSequenceClassification, num_labels=num_labels)
    output = model(tokens(), MASK, labels=labels)
    assert output.logits.shape == (2, num_labels)
    assert model.config.problem_type == problem
    losses = {
        "regression": lambda: F.mse_loss(output.logits[:, 0], labels),
        "single_label_classification": lambda: F.cross_entropy(output.logits, labels),
        "multi_label_classification": lambda: F.binary_cross_entropy_with_logits(
            output.logits, labels
        ),
    }
    torch.testing.assert_close(output.loss, losses[problem]())


def test_the_classifier_reads_the_first_token_whatever_the_padding_side() -> None:
    model = build(MagicBertForSequenceClassification)
    row = tokens()[:1, :9]
    blank = torch.zeros(1, 4, dtype=torch.long)
    alone = model(row).logits
    for padded in (torch.cat([row, blank], 1), torch.cat([blank, row], 1)):
        torch.testing.assert_close(model(padded, (padded > 0).long()).logits, alone)


def test_span_loss_leaves_out_spans_beyond_the_row() -> None:
    model = build(MagicBertForQuestionAnswering)
    starts, ends = torch.tensor([1, 3]), torch.tensor([4, 500])
    output = model(tokens(), MASK, start_positions=starts, end_positions=ends)
    expected = F.cross_entropy(output.start_logits, starts)
    expected = (expected + F.cross_entropy(output.end_logits[:1], ends[:1])) / 2
    torch.testing.assert_close(output.loss, expected)


def test_embeddings_resize_with_decoder_and_bias() -> None:
    model = build(MagicBertForMaskedLM)
    before = model(tokens()).logits
    model.resize_token_embeddings(VOCABULARY + 5)
    assert model.config.vocab_size == VOCABULARY + 5
    assert model.decoder.weight is model.model.embeddings.tokens.weight
    after = model(tokens()).logits
    assert after.shape[-1] == VOCABULARY + 5
    torch.testing.assert_close(after[..., :VOCABULARY], before)


def test_weights_are_tied_and_saved_once(tmp_path: Path) -> None:
    model = build(MagicBertForMaskedLM)
    model.save_pretrained(tmp_path)
    assert "decoder.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = MagicBertForMaskedLM.from_pretrained(tmp_path)
    assert loaded.decoder.weight is loaded.model.embeddings.tokens.weight


def enable_checkpointing(model: torch.nn.Module) -> None:
    """Calls the method by its name of transformers 5.23, or by the older one."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable()


def gradients(is_checkpointed: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Returns the gradients of one backward, and how often the second layer ran."""
    model = build(
        MagicBertForMaskedLM, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ).train()
    if is_checkpointed:
        enable_checkpointing(model)
    calls: list[int] = []
    model.model.encoder.layers[1].register_forward_pre_hook(lambda *_: calls.append(1))
    model(tokens(), MASK, labels=tokens()).loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, len(calls)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    plain, num_plain = gradients(False)
    checkpointed, num_checkpointed = gradients(True)
    assert (num_plain, num_checkpointed) == (1, 2)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


def test_new_heads_are_initialised_and_loaded_weights_kept(tmp_path: Path) -> None:
    trained = build(MagicBertForMaskedLM)
    trained.save_pretrained(tmp_path)
    loaded = MagicBertForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    dense = loaded.classifier.dense
    assert not dense.bias.any()
    assert dense.weight.std().item() == pytest.approx(0.2, rel=0.3)


def test_a_new_model_has_the_initial_scales() -> None:
    model = MagicBertForMaskedLM(
        MagicBertConfig(architecture="mha4-conv3", hidden_size=64, vocab_size=200)
    )
    attention, convolution = model.model.encoder.layers
    assert attention.query_key_value.weight.std().item() == pytest.approx(0.0884, rel=0.1)
    assert convolution.first.depthwise.weight.std().item() == pytest.approx(0.137, rel=0.25)
    assert model.decoder.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.decoder.bias.any()


def test_configuration_round_trip(tmp_path: Path) -> None:
    given = config(ARCHITECTURE, classifier_dropout=0.3)
    assert given.operators == ("mha2", "conv3", "ffn", "conv5x24")
    assert given.num_hidden_layers == 4
    given.save_pretrained(tmp_path)
    loaded = MagicBertConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == given.to_diff_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = build(MagicBertForMaskedLM)
    exact = model(tokens(), MASK).logits
    half = model.to(dtype)(tokens(), MASK).logits
    assert half.dtype == dtype
    valid = MASK > 0
    assert (half.float() - exact)[valid].abs().mean() < 0.05 * exact[valid].abs().mean()


def test_inference_mode() -> None:
    model = build(MagicBertForMaskedLM)
    expected = model(tokens(), MASK).logits
    with torch.inference_mode():
        assert torch.equal(model(tokens(), MASK).logits, expected)
