from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from bert_examples import FULL, LENGTH, PACKED, PADDED, config, randomise, segment_ids
from torch import Tensor

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.depthwise import DepthwiseConvolution
from magicbert.bert.modeling.operators import OPERATORS, build_operator, check_operator
from magicbert.bert.modeling.segments import Segments

NAMES = ("mha4", "ffn", "ffn24", "conv3", "conv5", "conv3x24", "conv7x8")
# magicbert's operators at hidden size 768, biases and norms included.
PARAMETERS = {
    "mha6": 2_363_904,
    "mha8": 2_363_904,
    "mha12": 2_363_904,
    "ffn": 4_723_968,
    "ffn1536": 2_363_136,
    "ffn2304": 3_543_552,
    "conv3": 1_190_400,
    "conv5": 1_193_472,
    "conv7": 1_196_544,
    "conv3x1536": 2_372_352,
    "conv5x1536": 2_376_960,
}


def operator(name: str) -> torch.nn.Module:
    return randomise(build_operator(name, config())).eval()


def hidden(seed: int = 0, rows: int = 2, length: int = LENGTH) -> Tensor:
    return torch.randn(rows, length, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameter_count(name: str, expected: int) -> None:
    with torch.device("meta"):
        built = build_operator(name, MagicBertConfig())
    assert sum(p.numel() for p in built.parameters()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_example_and_name_is_found(name: str) -> None:
    assert any(kind.pattern.fullmatch(name) for kind in OPERATORS)
    assert operator(name)(hidden(), Segments.of_ids(FULL)).shape == (2, LENGTH, 16)
    for kind in OPERATORS:
        check_operator(kind.example, 768)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mha5", ("5 heads", "hidden size 128", "mha4")),
        ("mha0", ("0 heads",)),
        ("conv4", ("odd",)),
        ("conv4x64", ("odd",)),
        ("conv3x0", ("inner size",)),
        ("ffn0", ("inner size",)),
        ("fnn", ("did you mean 'ffn'",)),
        ("con5", ("did you mean 'conv5'",)),
        ("mah4", ("did you mean 'mha4'",)),
        ("lstm", ("unknown operator 'lstm'", "conv{kernel}")),
        ("", ("unknown operator ''",)),
    ],
)
def test_bad_names_are_explained(name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="operator") as error:
        check_operator(name, 128)
    for word in words:
        assert word in str(error.value)


def reference_attention(module: torch.nn.Module, x: Tensor, heads: int) -> Tensor:
    query, key, value = module.query_key_value(x).chunk(3, dim=-1)
    split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value)]
    scores = split[0] @ split[1].transpose(-1, -2) / (x.shape[-1] // heads) ** 0.5
    mixed = (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)
    return module.norm(x + module.output(mixed))


def test_attention_equals_its_formula() -> None:
    module, x = operator("mha4"), hidden()
    expected = reference_attention(module, x, heads=4)
    torch.testing.assert_close(module(x, Segments.of_ids(FULL)), expected)


def separable(part: torch.nn.Module, x: Tensor, valid: Tensor) -> Tensor:
    """NAS-BERT's sub-layer, written with the library's convolutions."""
    channels_first = (x * valid[..., None]).transpose(1, 2)
    kernel = part.depthwise.weight.t()[:, None]
    depthwise = F.conv1d(
        channels_first, kernel, part.depthwise.bias, padding=kernel.shape[-1] // 2,
        groups=kernel.shape[0],
    )  # fmt: skip
    weight = part.pointwise.weight[..., None]
    return F.gelu(F.conv1d(depthwise, weight, part.pointwise.bias).transpose(1, 2))


@pytest.mark.parametrize("ids", [FULL, PADDED])
def test_convolutions_equal_their_formulas(ids: Tensor) -> None:
    x, valid, segments = hidden(), ids > 0, Segments.of_ids(ids)
    stacked = operator("conv5")
    middle = stacked.first_norm(x + separable(stacked.first, x, valid))
    expected = stacked.second_norm(middle + separable(stacked.second, middle, valid))
    torch.testing.assert_close(stacked(x, segments), expected)
    widened = operator("conv3x24")
    inner = separable(widened.widen, x, valid)
    expected = widened.norm(x + separable(widened.narrow, inner, valid))
    torch.testing.assert_close(widened(x, segments), expected)


@pytest.mark.parametrize("length", [1, 2, 3, 9])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_depthwise_gradients_equal_those_of_conv1d(kernel_size: int, length: int) -> None:
    layer = randomise(DepthwiseConvolution(16, kernel_size, 0.0)).double()
    segments = Segments.full(length, torch.device("cpu"))
    x = hidden(length=length).double().requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(9)).double()
    expected = F.conv1d(
        x.transpose(1, 2), layer.weight.t()[:, None], layer.bias, padding=kernel_size // 2,
        groups=16,
    ).transpose(1, 2)  # fmt: skip
    inputs = (x, layer.weight, layer.bias)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    given = torch.autograd.grad((layer(x, segments) * weights).sum(), inputs)
    torch.testing.assert_close(given, wanted)


def test_depthwise_gradients_within_segments() -> None:
    layer = randomise(DepthwiseConvolution(3, 5, 0.0)).double()
    segments = Segments.of_ids(segment_ids((4, 2, 3), (1, 8), length=9))
    x = torch.randn(2, 9, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, segments), (x,))


@pytest.mark.parametrize("name", NAMES)
def test_without_gradient_the_result_is_the_same(name: str) -> None:
    module, segments = operator(name), Segments.of_ids(PACKED)
    recorded = module(hidden(), segments)
    with torch.no_grad():
        assert torch.equal(module(hidden(), segments), recorded)
    with torch.inference_mode():
        assert torch.equal(module(hidden(), Segments.of_ids(PACKED)), recorded)


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED])
@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_near_fp32(name: str, ids: Tensor) -> None:
    module, segments = operator(name), Segments.of_ids(ids)
    exact = module(hidden(), segments)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(hidden(), segments)
    low = module.bfloat16()(hidden().bfloat16(), segments)
    assert low.dtype == torch.bfloat16
    valid = ids > 0
    for other in (mixed, low):
        error = (other.float() - exact)[valid].abs().mean()
        assert error < 0.02 * exact[valid].abs().mean()


def test_dropout_acts_in_training_only() -> None:
    module = operator("conv3")
    segments = Segments.of_ids(FULL)
    assert torch.equal(module(hidden(), segments), module(hidden(), segments))
    module.train()
    assert not torch.equal(module(hidden(), segments), module(hidden(), segments))
