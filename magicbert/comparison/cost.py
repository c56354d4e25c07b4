"""What an encoder costs, without any head: parameters and FLOPs of one row."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.space import Architecture
from magicbert.space.cost import Cost

# Not part of what fine-tuning and search compare: NAS-BERT has no pooler, ELECTRA none either.
LEFT_OUT = "pooler"


def encoder_cost(config: Any, length: int, *, trust_remote_code: bool = False) -> Cost:
    """Returns parameters (embeddings and layers) and FLOPs of a forward of one full row.

    The encoder of ours is counted by its operators. Another's products are counted in a forward of
    random weights, with attention written out so that they are seen; neither counts norms,
    activations and look-ups.

    Args:
        config: of transformers.
        length: tokens of the row.
        trust_remote_code: run code that comes with it.
    """
    if isinstance(config, MagicBertConfig):
        architecture = Architecture.parse(config.architecture)
        return bert_cost_model(config, architecture, length).cost(architecture)
    model = transformers.AutoModel.from_config(
        config, trust_remote_code=trust_remote_code, attn_implementation="eager"
    ).eval()
    remove_pooler(model)
    tokens = torch.ones(1, length, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, float(counter.get_total_flops()))


def remove_pooler(model: nn.Module) -> None:
    """Takes the pooler out of a model that has one."""
    if getattr(model, LEFT_OUT, None) is not None:
        setattr(model, LEFT_OUT, None)
