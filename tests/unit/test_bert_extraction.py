from __future__ import annotations

import numpy as np
import pytest
import torch
from bert_examples import FULL, PACKED, PADDED, batch, randomise, supernet

from magicbert.bert.extraction import extract
from magicbert.errors import UserError
from magicbert.space import Architecture


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
@pytest.mark.parametrize("seed", range(4))
def test_path_and_extracted_model_are_bit_equal(seed: int, ids: torch.Tensor) -> None:
    model = randomise(supernet(num_layers=6), seed).eval()
    path = model.space.sample(np.random.default_rng(seed))
    given = batch(ids, seed)
    with torch.no_grad():
        inside = model(given, path, block_ends=range(1, 7))
        outside = extract(model, path)(given.input_ids, segment_ids=ids, output_hidden_states=True)
        for one, other in zip(inside.block_outputs, outside.hidden_states[1:], strict=True):
            assert torch.equal(one, other)
        assert torch.equal(model.predict(inside.hidden), outside.logits)


def test_every_candidate_is_extracted_somewhere() -> None:
    model = randomise(supernet()).eval()
    given = batch(PACKED)
    for name in model.space.layers[0]:
        path = Architecture((name,) * 4)
        extracted = extract(model, path)
        assert extracted.config.architecture == str(path)
        hidden = extracted.model(given.input_ids, segment_ids=PACKED).last_hidden_state
        assert torch.equal(hidden, model(given, path).hidden)


def test_the_copy_is_independent_and_tied() -> None:
    model = supernet()
    path = Architecture.parse("mha2-conv3-ffn24-conv5x24")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    extracted = extract(model, path)
    assert extracted.decoder.weight is extracted.model.embeddings.tokens.weight
    assert model.config.architecture == ""
    randomise(extracted)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("is_training", [True, False])
def test_mode_is_kept(is_training: bool) -> None:
    model = supernet().train(is_training)
    extracted = extract(model, Architecture(("ffn",) * 4))
    assert all(part.training == is_training for part in extracted.modules())


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(UserError, match="layer 1 is 'conv7'"):
        extract(supernet(), Architecture.parse("mha2-conv7-ffn-ffn"))
    with pytest.raises(UserError, match="has 1 layers"):
        extract(supernet(), Architecture.parse("mha2"))
