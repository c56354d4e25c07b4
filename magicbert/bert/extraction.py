"""From a path of a supernet to a concrete Hugging Face model with the same weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.modeling.modeling_discriminator import MagicBertForPreTraining
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.supernet import EncoderSupernet
from magicbert.space import Architecture


def extract(
    supernet: EncoderSupernet, architecture: Architecture
) -> MagicBertForMaskedLM | MagicBertForPreTraining:
    """Returns the path as a model of its own; it computes bit for bit what the path computes.

    A path of replaced-token detection is a discriminator; the generator stays behind.

    Args:
        supernet: its weights are copied.
        architecture: the path; must fit the supernet's space.

    Raises:
        UserError: the architecture does not fit the space.
    """
    weights = concrete_weights(supernet, architecture)
    config = copy.deepcopy(supernet.config)
    config.architecture = str(architecture)
    # A model of its own goes to other machines: it takes what is there.
    config.backend = "auto"
    with torch.device("meta"):
        is_discriminator = isinstance(supernet, ElectraSupernet)
        kind = MagicBertForPreTraining if is_discriminator else MagicBertForMaskedLM
        model: MagicBertForMaskedLM | MagicBertForPreTraining = kind(config)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.train(supernet.training)
    return model


def concrete_weights(supernet: EncoderSupernet, architecture: Architecture) -> dict[str, Tensor]:
    """Returns copies of a path's weights under the names of its model."""
    weights = {
        concrete_name(name): value.detach().clone()
        for name, value in supernet.path_state(architecture).items()
        if not name.startswith(("generator.", *supernet.left_behind))
    }
    if not isinstance(supernet, ElectraSupernet):
        weights["decoder.weight"] = weights["model.embeddings.tokens.weight"]
    return weights


def concrete_name(name: str) -> str:
    """Maps a supernet's parameter name: ``layers.3.mha12.norm.bias`` loses the operator's name."""
    first, *rest = name.split(".")
    if first == "layers":
        layer, _operator, *inner = rest
        return ".".join(("model.encoder.layers", layer, *inner))
    if first == "embeddings":
        return f"model.{name}"
    return {"decoder_bias": "decoder.bias"}.get(name, name)
