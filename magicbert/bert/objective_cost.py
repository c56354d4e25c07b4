"""FLOPs of what an objective adds to a path: heads, and the generator of ELECTRA."""

from __future__ import annotations

from typing import cast

from torch import nn

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.generator import GeneratorSizes
from magicbert.bert.modeling.attention import Attention
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.transfer import Transferred
from magicbert.bert.state_matching import StateMatching
from magicbert.config.sections import ObjectiveSection
from magicbert.space import Architecture

# The logits that tokens are drawn from have no backward, which costs two forwards.
SHARE_WITHOUT_BACKWARD = 1 / 3


def objective_flops(
    objective: ObjectiveSection, config: MagicBertConfig, length: int, num_predicted: float
) -> float:
    """Returns the forward FLOPs of one row beside the encoder's, for a step of training.

    Args:
        objective: what is trained.
        config: sizes of the encoder, with an architecture: the depth of the generator follows it.
        length: positions of the row.
        num_predicted: masked positions among them.
    """
    hidden, table, vocab_size = config.hidden_size, config.table_size, config.vocab_size
    if objective.name == "mlm":
        return decoding_flops(config, num_predicted)
    sizes = GeneratorSizes.of(objective, hidden, config.num_hidden_layers)
    own = sizes.config(config, table)
    path = Architecture.parse(own.architecture)
    generator = bert_cost_model(own, path, length).cost(path).flops
    decoding = num_predicted * 2 * table * (sizes.hidden_size + vocab_size)
    drawing = num_predicted * 2 * table * vocab_size * SHARE_WITHOUT_BACKWARD
    detecting = 2 * length * hidden * (hidden + 1)
    return generator + decoding + drawing + detecting


def decoding_flops(config: MagicBertConfig, num_predicted: float) -> float:
    """Returns the FLOPs of the logits of some positions: the head's map and the token table."""
    return num_predicted * 2 * config.table_size * (config.hidden_size + config.vocab_size)


def map_flops(matching: StateMatching, length: int) -> float:
    """Returns the FLOPs of the maps that bring the student's states to the teacher's widths."""
    pairs = (pair for pair in matching.hidden if pair.student_width != pair.teacher_width)
    return sum(2.0 * length * pair.student_width * pair.teacher_width for pair in pairs)


def relation_flops(layer: nn.Module, length: int) -> float:
    """Returns the FLOPs of a row's relations of queries, keys and values.

    Args:
        layer: whose they are; its projections, and a border ahead of them, run once more.
        length: positions of the row.
    """
    border = 0
    if isinstance(layer, Transferred):
        border, layer = layer.transfer.weight.numel(), layer.operator
    width = cast(Attention, layer).output.in_features
    return 2.0 * length * (border + 3 * width * (width + length))
