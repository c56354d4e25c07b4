"""FLOPs of what an objective adds to a path: heads, and the generator of ELECTRA."""

from __future__ import annotations

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.generator import GeneratorSizes
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
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
        return num_predicted * 2 * table * (hidden + vocab_size)
    sizes = GeneratorSizes.of(objective, hidden, config.num_hidden_layers)
    own = sizes.config(config, table)
    path = Architecture.parse(own.architecture)
    generator = bert_cost_model(own, path, length).cost(path).flops
    decoding = num_predicted * 2 * table * (sizes.hidden_size + vocab_size)
    drawing = num_predicted * 2 * table * vocab_size * SHARE_WITHOUT_BACKWARD
    detecting = 2 * length * hidden * (hidden + 1)
    return generator + decoding + drawing + detecting
