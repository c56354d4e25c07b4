from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertModel
from magicbert.bert.spaces import check_architecture, resolve_space
from magicbert.config.sections import SpaceSection
from magicbert.errors import UserError
from magicbert.space import Architecture


def test_main_preset() -> None:
    space = resolve_space(SpaceSection(preset="main"), 768)
    assert space.num_layers == 24
    assert set(space.layers) == {("mha12", "ffn", "conv3", "conv5")}


def test_analysis_preset_has_equally_large_operators() -> None:
    space = resolve_space(SpaceSection(preset="analysis"), 768)
    assert space.num_layers == 12
    names = space.layers[0]
    assert names == ("mha6", "mha8", "ffn1536", "ffn1792", "conv3x1536", "conv5x1536")
    costs = bert_cost_model(MagicBertConfig(), names, 128).operators
    sizes = [costs[name].parameters for name in names if name != "ffn1792"]
    assert max(sizes) / min(sizes) < 1.006
    ratio = costs["ffn1792"].parameters / costs["ffn1536"].parameters
    assert ratio == pytest.approx(1.17, abs=0.01)


def test_inner_widths_scale_with_the_hidden_size() -> None:
    space = resolve_space(SpaceSection(preset="analysis", num_layers=6), 384)
    assert space.num_layers == 6
    assert space.layers[0] == ("mha6", "mha8", "ffn768", "ffn896", "conv3x768", "conv5x768")


def test_candidates_replace_those_of_the_preset() -> None:
    section = SpaceSection(num_layers=3, candidates=("mha4", "ffn"))
    assert resolve_space(section, 128).layers == (("mha4", "ffn"),) * 3


def test_layers_may_have_candidates_of_their_own() -> None:
    section = SpaceSection(preset="custom", layers=("mha4", "mha4|ffn|conv3", "ffn|mha2"))
    expected = (("mha4",), ("mha4", "ffn", "conv3"), ("ffn", "mha2"))
    assert resolve_space(section, 128).layers == expected
    with pytest.raises(UserError, match=r"space\.layers: .*'mha3'"):
        resolve_space(SpaceSection(preset="custom", layers=("ffn|mha3",)), 128)
    with pytest.raises(UserError, match="layer 0: needs distinct candidates"):
        resolve_space(SpaceSection(preset="custom", layers=("ffn|ffn",)), 128)


@pytest.mark.parametrize(
    "other", [{"preset": "main"}, {"num_layers": 2}, {"candidates": ("ffn",)}], ids=str
)
def test_layers_stand_alone(other: dict[str, Any]) -> None:
    section = SpaceSection(**{"preset": "custom", "layers": ("ffn",), **other})
    assert list(section.validate()) == [
        "layers: need preset 'custom', without num_layers and candidates"
    ]


def test_every_bad_operator_is_named_at_once() -> None:
    section = SpaceSection(num_layers=3, candidates=("mha5", "ffn", "conv2", "gru"))
    with pytest.raises(UserError) as error:
        resolve_space(section, 128)
    for word in ("space.candidates", "'mha5'", "'conv2'", "'gru'"):
        assert word in str(error.value)
    assert "'ffn'" not in str(error.value)


def test_a_preset_that_does_not_fit_says_so() -> None:
    with pytest.raises(UserError, match=r"preset 'main'.*12 heads do not divide hidden size 128"):
        resolve_space(SpaceSection(preset="main"), 128)


def test_architecture_check() -> None:
    check_architecture(Architecture.parse("mha4-conv3x64-ffn"), 128)
    with pytest.raises(UserError, match="architecture mha5-ffn: operator 'mha5'"):
        check_architecture(Architecture.parse("mha5-ffn"), 128)


@pytest.mark.parametrize("architecture", ["mha4-ffn-conv3-conv5", "mha2-ffn24-conv3x24-conv7"])
def test_cost_counts_every_parameter(architecture: str) -> None:
    config = MagicBertConfig(
        architecture=architecture, hidden_size=16, vocab_size=50, max_position_embeddings=20
    )
    path = Architecture.parse(architecture)
    cost = bert_cost_model(config, path, 20).cost(path)
    assert cost.parameters == sum(p.numel() for p in MagicBertModel(config).parameters())


def test_bert_base_size() -> None:
    path = Architecture(("mha12", "ffn") * 12)
    model = bert_cost_model(MagicBertConfig(), path, 512)
    # BERT-base without segment embeddings and pooler: 85.05M in the layers, 23.84M in the tables.
    assert model.cost(path).parameters - model.fixed.parameters == 85_054_464
    assert model.fixed.parameters == (30522 + 512 + 2) * 768


@pytest.mark.parametrize(
    ("name", "depthwise_products"),
    [("mha4", 0), ("ffn", 0), ("conv3", 2 * 3 * 16), ("conv5x24", 5 * 16 + 5 * 24)],
)
def test_flops_equal_those_that_torch_counts(name: str, depthwise_products: int) -> None:
    """Torch counts matrix products, and depthwise ones only where a library does them."""
    length = 12
    config = MagicBertConfig(
        architecture=name, hidden_size=16, vocab_size=50, max_position_embeddings=20
    )
    model = MagicBertModel(config).eval()
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.ones(1, length, dtype=torch.long))
    cost = bert_cost_model(config, [name], length).of_operator(name)
    counts = counter.get_flop_counts()["Global"]
    products = sum(number for name, number in counts.items() if "convolution" not in str(name))
    assert cost.flops == products + 2 * depthwise_products * length
