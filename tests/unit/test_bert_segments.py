from __future__ import annotations

import pytest
import torch
from bert_examples import FULL, LENGTH, PACKED, PADDED, config, randomise, segment_ids
from torch import Tensor

from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM, MagicBertModel
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.modeling.segments import Segments

NAMES = ("mha2", "mha4", "ffn", "conv3", "conv5", "conv3x24", "conv7x8")
ARCHITECTURE = "mha2-conv5-ffn-conv3x24-mha4-conv3"


def hidden(ids: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(*ids.shape, 16, generator=torch.Generator().manual_seed(seed))


def encoder() -> MagicBertModel:
    return randomise(MagicBertModel(config(ARCHITECTURE))).eval()


def tokens(ids: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 60, ids.shape, generator=generator)


def test_full_rows_need_no_mask() -> None:
    segments = Segments.of_ids(FULL)
    assert segments.ids is segments.valid is segments.attention_mask is None
    assert not segments.is_packed
    assert segments.position_ids.tolist() == [list(range(LENGTH))]
    assert segments.linked(1, torch.float32) is None


def test_padded_rows_mask_keys_only() -> None:
    segments = Segments.of_ids(PADDED)
    assert segments.attention_mask.shape == (2, 1, 1, LENGTH)
    assert torch.equal(segments.valid, PADDED > 0)
    assert not segments.is_packed


def test_packed_rows_see_their_own_segment() -> None:
    segments = Segments.of_ids(segment_ids((2, 3), (5,), length=6))
    assert segments.is_packed
    assert segments.position_ids.tolist()[0][:5] == [0, 1, 0, 1, 2]
    mask = segments.attention_mask[0, 0]
    assert mask[:2, :2].all()
    assert mask[2:5, 2:5].all()
    assert not mask[:2, 2:].any()
    assert segments.linked(1, torch.float32)[0, :, 0].tolist() == [1, 0, 1, 1, 0]
    assert segments.linked(2, torch.float32)[0, :, 0].tolist() == [0, 0, 1, 0]


def test_packed_rows_without_padding_hide_nothing() -> None:
    segments = Segments.of_ids(segment_ids((2, 4), (6,), length=6))
    assert segments.valid is None
    x = torch.ones(2, 6, 16)
    assert segments.hide_padding(x) is x


@pytest.mark.parametrize(
    ("ids", "positions"),
    [
        ([1, 1, 1, 0], [0, 1, 2]),
        ([0, 0, 1, 1], [0, 1]),  # padded on the left: the first token is at position 0
        ([1, 0, 1, 1], [0, 2, 3]),  # a hole is hidden, but counted
        ([1, 2, 2, 3], [0, 0, 1, 0]),
    ],
)
def test_positions_of_valid_tokens(ids: list[int], positions: list[int]) -> None:
    row = torch.tensor([ids])
    segments = Segments.of_ids(row)
    assert segments.position_ids.expand(1, -1)[row > 0].tolist() == positions


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ids", [PADDED, PACKED])
def test_operators_never_leave_a_segment(name: str, ids: Tensor) -> None:
    """Perturbing one document, or the padding, leaves every other document bit-identical."""
    module = randomise(build_operator(name, config())).eval()
    segments = Segments.of_ids(ids)
    before = module(hidden(ids), segments)
    for row in range(len(ids)):
        for number in ids[row].unique().tolist():
            changed = torch.zeros_like(ids, dtype=torch.bool)
            changed[row] = ids[row] == number
            x = torch.where(changed[..., None], 50 * hidden(ids, seed=1), hidden(ids))
            after = module(x, segments)
            others = ~changed & (ids > 0)
            assert torch.equal(after[others], before[others])
            assert not torch.equal(after[changed], before[changed])


@pytest.mark.parametrize("ids", [PADDED, PACKED])
def test_the_encoder_never_leaves_a_segment(ids: Tensor) -> None:
    model = encoder()
    before = model(tokens(ids), segment_ids=ids).last_hidden_state
    for number in ids[1].unique().tolist():
        changed = torch.zeros_like(ids, dtype=torch.bool)
        changed[1] = ids[1] == number
        mixed = torch.where(changed, tokens(ids, seed=1), tokens(ids))
        after = model(mixed, segment_ids=ids).last_hidden_state
        others = ~changed & (ids > 0)
        assert torch.equal(after[others], before[others])


def test_packed_documents_equal_documents_alone() -> None:
    model, inputs = encoder(), tokens(PACKED)
    packed = model(inputs, segment_ids=PACKED).last_hidden_state
    for row in range(len(PACKED)):
        for number in range(1, int(PACKED[row].max()) + 1):
            mine = PACKED[row] == number
            alone = model(inputs[row][mine][None]).last_hidden_state[0]
            torch.testing.assert_close(packed[row][mine], alone)


def test_gradients_do_not_leave_a_segment() -> None:
    model = encoder()
    embedded = hidden(PACKED).requires_grad_()
    output = model(inputs_embeds=embedded, segment_ids=PACKED).last_hidden_state
    output[0][PACKED[0] == 1].square().sum().backward()
    reached = embedded.grad.abs().sum(-1) > 0
    expected = torch.zeros_like(reached)
    expected[0] = PACKED[0] == 1
    assert torch.equal(reached, expected)


def test_the_fast_path_equals_the_masked_one() -> None:
    """Full rows run without a mask; in a batch with a padded row they run with one."""
    model, inputs = encoder(), tokens(PADDED)
    fast = model(inputs[:1]).last_hidden_state
    masked = model(inputs, segment_ids=PADDED).last_hidden_state[:1]
    torch.testing.assert_close(fast, masked)


def test_padding_side_does_not_matter() -> None:
    model, inputs = encoder(), tokens(PADDED)[1:, :9]
    blank = torch.zeros(1, 3, dtype=torch.long)
    ones = torch.ones_like(inputs)
    alone = model(inputs).last_hidden_state
    right = model(torch.cat([inputs, blank], 1), torch.cat([ones, blank], 1)).last_hidden_state
    left = model(torch.cat([blank, inputs], 1), torch.cat([blank, ones], 1)).last_hidden_state
    torch.testing.assert_close(right[:, :9], alone)
    torch.testing.assert_close(left[:, 3:], alone)


def test_a_row_of_nothing_but_padding_stays_finite() -> None:
    for ids in (segment_ids((LENGTH,), ()), segment_ids((4, 6), ())):
        model = randomise(MagicBertForMaskedLM(config(ARCHITECTURE)))
        output = model(tokens(ids), segment_ids=ids)
        output.logits.square().mean().backward()
        assert output.logits.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
