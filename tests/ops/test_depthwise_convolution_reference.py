"""The convolution's reference: equal to the library's, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from magicbert_kernels.depthwise_convolution import depthwise_convolution

HIDDEN, WEIGHT, BIAS = torch.randn(2, 6, 4), torch.randn(3, 4), torch.randn(4)
IDS = torch.ones(2, 6, dtype=torch.int32)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
@pytest.mark.parametrize("length", [1, 2, 6])
def test_a_full_row_equals_conv1d(kernel_size: int, length: int) -> None:
    hidden = torch.randn(2, length, 4, dtype=torch.double)
    weight, bias = torch.randn(kernel_size, 4).double(), torch.randn(4).double()
    expected = F.conv1d(
        hidden.transpose(1, 2), weight.t()[:, None], bias, padding=kernel_size // 2, groups=4
    )
    for ids in (None, torch.full((2, length), 7)):
        given = depthwise_convolution(hidden, weight, bias, ids, backend="torch")
        torch.testing.assert_close(given, expected.transpose(1, 2))


def test_a_segment_in_a_row_equals_a_row_of_its_own() -> None:
    ids = torch.tensor([[1, 1, 2, 2, 2, 0], [0, 4, 4, 4, 4, 4]])
    packed = depthwise_convolution(HIDDEN, WEIGHT, BIAS, ids, backend="torch")
    for row, start, end in ((0, 0, 2), (0, 2, 5), (1, 1, 6)):
        alone = depthwise_convolution(
            HIDDEN[row : row + 1, start:end], WEIGHT, BIAS, None, backend="torch"
        )
        torch.testing.assert_close(packed[row, start:end], alone[0])
    assert torch.equal(packed[ids == 0], BIAS.expand(2, 4))


def test_gradients_of_the_reference() -> None:
    ids = torch.tensor([[1, 1, 2, 0, 2], [3, 3, 3, 3, 0]])
    inputs = [
        torch.randn(shape, dtype=torch.double, requires_grad=True)
        for shape in ((2, 5, 3), (5, 3), (3,))
    ]
    assert torch.autograd.gradcheck(
        lambda *given: depthwise_convolution(*given, ids, backend="torch"), inputs
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_BSH": HIDDEN[0]}, r"expected hidden \[B, S, H\]"),
        ({"weight_KH": WEIGHT[:2]}, "must be odd, got 2"),
        ({"weight_KH": WEIGHT[:, :3]}, "channels differ"),
        ({"bias_H": BIAS[:3]}, "channels differ"),
        ({"hidden_BSH": HIDDEN.long()}, "expected floats"),
        ({"bias_H": BIAS.double()}, "bias torch.float64"),
        ({"segment_ids_BS": IDS[:, :5]}, r"must be integers \(2, 6\)"),
        ({"segment_ids_BS": IDS > 0}, "torch.bool"),
        ({"weight_KH": WEIGHT.to("meta")}, "several devices"),
        ({"weight_KH": torch.randn(9, 4), "backend": "triton"}, r"kernel sizes \(3, 5, 7\), got 9"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict, message: str) -> None:
    given = {"hidden_BSH": HIDDEN, "weight_KH": WEIGHT, "bias_H": BIAS, "segment_ids_BS": IDS}
    with pytest.raises(ValueError, match=message):
        depthwise_convolution(**{"backend": "torch", **given, **changes})
