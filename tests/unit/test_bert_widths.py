"""Encoders whose layers have several widths: the supernet, the model cut from it, the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bert_examples import FULL, LENGTH, PACKED, PADDED, VOCABULARY, batch, config, randomise

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.extraction import extract
from magicbert.bert.modeling.modeling_magicbert import (
    MagicBertForMaskedLM,
    MagicBertForSequenceClassification,
    MagicBertModel,
)
from magicbert.bert.modeling.operators import build_operator, check_operator
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.saving import load_supernet, save_supernet
from magicbert.bert.spaces import fitted_to
from magicbert.bert.supernet import BertSupernet
from magicbert.config.sections import ModelSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace

NET = Architecture.parse("mha2w8-ffnw8-skipw8-conv3w12-conv5x24w12-ffn-mha4")


def student(embedding_size: int | None = 6) -> BertSupernet:
    model = BertSupernet(SearchSpace.of(NET), config(embedding_size=embedding_size), seed=0)
    return randomise(model).eval()  # type: ignore[return-value]


@pytest.mark.parametrize("embedding_size", [6, None])
@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
def test_path_and_extracted_model_are_bit_equal(
    ids: torch.Tensor, embedding_size: int | None
) -> None:
    model, given = student(embedding_size), batch(ids)
    with torch.no_grad():
        inside = model(given, NET, block_ends=range(1, 8))
        outside = extract(model, NET)(given.input_ids, segment_ids=ids, output_hidden_states=True)
    widths = [state.shape[-1] for state in outside.hidden_states]
    assert widths == [8, 8, 8, 8, 12, 12, 16, 16]
    for one, other in zip(inside.block_outputs, outside.hidden_states[1:], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(model.predict(inside.hidden), outside.logits)


def test_a_saved_folder_gives_the_same_outputs(tmp_path: Path) -> None:
    given, model = batch(PADDED), extract(student(), NET)
    model.save_pretrained(tmp_path / "hub")
    loaded = MagicBertForMaskedLM.from_pretrained(tmp_path / "hub")
    assert loaded.config.embedding_size == 6
    expected = model(given.input_ids, segment_ids=PADDED).logits
    assert torch.equal(loaded(given.input_ids, segment_ids=PADDED).logits, expected)
    save_supernet(tmp_path / "own", student(), {})
    again = extract(load_supernet(tmp_path / "own")[0], NET)
    assert torch.equal(again(given.input_ids, segment_ids=PADDED).logits, expected)


def test_heads_read_the_last_width() -> None:
    model = MagicBertForSequenceClassification(config(str(NET), embedding_size=6, num_labels=3))
    assert model.classifier.dense.in_features == 16
    logits = model(torch.ones(2, LENGTH, dtype=torch.long)).logits
    logits.sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("embedding_size", [6, None])
def test_cost_counts_every_parameter(embedding_size: int | None) -> None:
    sizes = config(str(NET), embedding_size=embedding_size)
    cost = bert_cost_model(sizes, NET, 20).cost(NET)
    assert cost.parameters == sum(p.numel() for p in MagicBertModel(sizes).parameters())
    # The cost of a path is the same with the sizes of a supernet, which name no architecture.
    assert bert_cost_model(config(embedding_size=embedding_size), NET, 20).cost(NET) == cost


def test_flops_count_the_maps_between_widths() -> None:
    sizes = config(str(NET), embedding_size=6)
    model = bert_cost_model(sizes, NET, 20)
    assert model.fixed.flops == 2 * 20 * (6 * 8 + 8 * 12 + 12 * 16)


def test_padding_stays_zero_where_the_stream_begins() -> None:
    hidden = extract(student(), NET).model(torch.ones_like(PADDED), segment_ids=PADDED)
    first = extract(student(), NET).model.embeddings(
        torch.ones_like(PADDED), Segments.of_ids(PADDED)
    )
    assert not first[PADDED == 0].any()
    assert hidden.last_hidden_state.shape == (2, LENGTH, 16)


def test_the_skip_returns_its_input_and_has_no_weights() -> None:
    skip = build_operator("skip", config())
    given = torch.randn(2, LENGTH, 16)
    assert skip(given, Segments.of_ids(FULL)) is given
    assert not list(skip.parameters())


def test_widths_that_do_not_fit_are_explained() -> None:
    with pytest.raises(UserError, match=r"layer 0 has candidates of widths \[8, 16\]"):
        BertSupernet(SearchSpace((("ffnw8", "ffn"), ("ffn",))), config(), seed=0)
    with pytest.raises(UserError, match="hidden_size: 16, but the last layer has width 8"):
        BertSupernet(SearchSpace((("ffn",), ("ffnw8",))), config(), seed=0)
    with pytest.raises(ValueError, match="16 is not the width of the last operator, 'ffnw8'"):
        MagicBertModel(config("ffn-ffnw8"))
    with pytest.raises(ValueError, match="3 heads do not divide hidden size 8"):
        check_operator("mha3w8", 16)
    with pytest.raises(ValueError, match="width must be at least 1"):
        check_operator("ffnw0", 16)


def test_the_hidden_size_follows_the_architecture() -> None:
    model = ModelSection(hidden_size=768)
    assert fitted_to(Architecture.parse("mha2w8-ffnw24"), model).hidden_size == 24
    assert fitted_to(Architecture.parse("mha2w8-ffn"), model) == model


def test_vocabulary_of_the_examples_is_the_decoders() -> None:
    assert extract(student(), NET).decoder.weight.shape == (VOCABULARY, 6)
