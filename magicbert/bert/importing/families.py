"""What a BERT, a RoBERTa and an ELECTRA checkpoint call things, and what of it we can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import transformers

from magicbert.bert.importing.checkpoint import Checkpoint
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.errors import ConfigError, UserError


@dataclass(frozen=True)
class Head:
    """A head that is imported with its encoder.

    Attributes:
        kind: ``masked-lm`` or ``discriminator``.
        names: where each of our modules stands in the checkpoint.
        bias: of the decoder: its name where the decoder is tied, and where it is not.
        decoder: name of the decoder's matrix; empty = the head has none.
    """

    kind: str
    names: Mapping[str, str]
    bias: tuple[str, str] = ("", "")
    decoder: str = ""


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint.

    Attributes:
        config: its configuration class, for the defaults of fields that are not written.
        prefix: of the encoder's names, in a checkpoint with a head.
        heads: those that can be imported.
        has_position_offset: the table of positions begins behind the padding token's id.
    """

    config: type[Any]
    prefix: str
    heads: tuple[Head, ...]
    has_position_offset: bool = False


FAMILIES = {
    "bert": Family(
        transformers.BertConfig,
        "bert",
        (
            Head(
                "masked-lm",
                {
                    "transform.dense": "cls.predictions.transform.dense",
                    "transform.norm": "cls.predictions.transform.LayerNorm",
                },
                ("cls.predictions.bias", "cls.predictions.decoder.bias"),
                "cls.predictions.decoder.weight",
            ),
        ),
    ),
    "roberta": Family(
        transformers.RobertaConfig,
        "roberta",
        (
            Head(
                "masked-lm",
                {"transform.dense": "lm_head.dense", "transform.norm": "lm_head.layer_norm"},
                ("lm_head.bias", "lm_head.decoder.bias"),
                "lm_head.decoder.weight",
            ),
        ),
        has_position_offset=True,
    ),
    "electra": Family(
        transformers.ElectraConfig,
        "electra",
        (
            Head(
                "discriminator",
                {
                    "discriminator.dense": "discriminator_predictions.dense",
                    "discriminator.output": "discriminator_predictions.dense_prediction",
                },
            ),
            Head(
                "masked-lm",
                {
                    "transform.dense": "generator_predictions.dense",
                    "transform.norm": "generator_predictions.LayerNorm",
                },
                ("generator_lm_head.bias", "generator_lm_head.bias"),
                "generator_lm_head.weight",
            ),
        ),
    ),
}

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
MAX_LAYERS = 1000
READ = (
    *SIZES, "embedding_size", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "classifier_dropout", "initializer_range", "layer_norm_eps", "pad_token_id", "is_decoder",
    "add_cross_attention",
)  # fmt: skip


def family_of(checkpoint: Checkpoint) -> Family:
    """Returns the family that a checkpoint says it is of.

    Raises:
        UserError: it is of another one.
    """
    model_type = checkpoint.config.get("model_type")
    if model_type not in FAMILIES:
        raise UserError(
            f"{checkpoint.name}: model_type: {model_type!r} cannot be imported; "
            f"{', '.join(FAMILIES)} and our own exports can"
        )
    return FAMILIES[model_type]


def our_config(checkpoint: Checkpoint, family: Family) -> MagicBertConfig:
    """Returns the configuration of the same encoder in our form.

    Raises:
        ConfigError: with everything that our encoder cannot do.
    """
    fields = {name: checkpoint.config[name] for name in READ if name in checkpoint.config}
    problems = list(unsupported(checkpoint.config))
    try:
        theirs = family.config(**fields)
    except Exception as error:  # transformers checks types with errors of several kinds
        problems.append(f"config.json: {' '.join(str(error).split())[:300]}")
    if not problems:
        problems = list(misfits(theirs))
    if problems:
        raise ConfigError(checkpoint.name, problems)
    return converted(theirs, family)


def unsupported(config: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a configuration asks for that changes what the encoder computes."""
    form = config.get("position_embedding_type", "absolute")
    if form != "absolute":
        yield f"position_embedding_type: {form!r}: only 'absolute' positions can be imported"
    if config.get("hidden_act", "gelu") != "gelu":
        yield f"hidden_act: {config['hidden_act']!r}: only 'gelu' can be imported"
    for name in ("is_decoder", "add_cross_attention", "quantization_config", "pruned_heads"):
        if config.get(name):
            yield f"{name}: {str(config[name])[:60]}: only whole encoders can be imported"


def misfits(theirs: Any) -> Iterator[str]:
    """Yields sizes that make no encoder."""
    small = [name for name in SIZES if getattr(theirs, name) < 1]
    yield from (f"{name}: {getattr(theirs, name)}: must be at least 1" for name in small)
    if theirs.num_hidden_layers > MAX_LAYERS:
        yield f"num_hidden_layers: {theirs.num_hidden_layers}: at most {MAX_LAYERS}"
    if not small and theirs.hidden_size % theirs.num_attention_heads:
        yield (
            f"num_attention_heads: {theirs.num_attention_heads} do not divide "
            f"hidden_size {theirs.hidden_size}"
        )


def converted(theirs: Any, family: Family) -> MagicBertConfig:
    """Returns our configuration of an encoder that fits."""
    hidden, inner = theirs.hidden_size, theirs.intermediate_size
    layer = f"mha{theirs.num_attention_heads}-ffn{'' if inner == 4 * hidden else inner}"
    embedding = getattr(theirs, "embedding_size", hidden)
    return MagicBertConfig(
        architecture="-".join([layer] * theirs.num_hidden_layers),
        vocab_size=theirs.vocab_size,
        hidden_size=hidden,
        embedding_size=None if embedding == hidden else embedding,
        max_position_embeddings=theirs.max_position_embeddings - position_offset(theirs, family),
        hidden_dropout_prob=theirs.hidden_dropout_prob,
        attention_probs_dropout_prob=theirs.attention_probs_dropout_prob,
        classifier_dropout=theirs.classifier_dropout,
        initializer_range=theirs.initializer_range,
        layer_norm_eps=theirs.layer_norm_eps,
        pad_token_id=theirs.pad_token_id,
    )


def position_offset(theirs: Any, family: Family) -> int:
    """Returns the row of the table of positions that a row's first token takes."""
    return (theirs.pad_token_id or 0) + 1 if family.has_position_offset else 0
