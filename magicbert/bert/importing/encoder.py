"""A checkpoint's weights under our names, and the model they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from magicbert.bert.importing.checkpoint import Checkpoint, read_checkpoint
from magicbert.bert.importing.families import Family, Head, family_of, our_config
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_discriminator import MagicBertForPreTraining
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM, MagicBertModel
from magicbert.errors import UserError

EncoderModel: TypeAlias = MagicBertModel | MagicBertForMaskedLM | MagicBertForPreTraining
KINDS: dict[str, type[EncoderModel]] = {
    "masked-lm": MagicBertForMaskedLM,
    "discriminator": MagicBertForPreTraining,
    "none": MagicBertModel,
}
TABLE = "model.embeddings.tokens.weight"
DECODER = "decoder.weight"


@dataclass(frozen=True)
class Imported:
    """An encoder of others in our form.

    Attributes:
        model: fp32, on the CPU, in evaluation mode.
        head: ``masked-lm``, ``discriminator``, or ``none``.
        family: ``bert``, ``roberta``, ``electra``, or ``magicbert``.
        folder: where the checkpoint lies, its tokenizer too.
        dropped: names in the checkpoint that have no place in the model, such as poolers.
    """

    model: EncoderModel
    head: str
    family: str
    folder: Path
    dropped: tuple[str, ...]

    @property
    def encoder(self) -> MagicBertModel:
        """The model without its head."""
        return self.model.base_model  # type: ignore[no-any-return]


def import_encoder(source: str) -> Imported:
    """Returns a BERT, RoBERTa or ELECTRA checkpoint, or an export of ours, as a model of ours.

    On rows of one text its outputs equal those of the original up to rounding. Type embeddings
    are not kept: the one of type 0 is part of the positions, so both texts of a pair get it.

    Args:
        source: folder, or id of a model on the hub.

    Raises:
        UserError: it is not there, damaged, or computes something that our encoder cannot.
    """
    checkpoint = read_checkpoint(source)
    if checkpoint.config.get("model_type") == MagicBertConfig.model_type:
        return reopened(checkpoint)
    family = family_of(checkpoint)
    config = our_config(checkpoint, family)
    conversion = Conversion(checkpoint, family, config)
    weights, head = conversion.run()
    model = built(checkpoint.name, head, config, weights)
    kind = str(checkpoint.config["model_type"])
    return Imported(model, head, kind, checkpoint.folder, conversion.left())


def reopened(checkpoint: Checkpoint) -> Imported:
    """Returns an export of ours, with the head that its weights hold."""
    known = {name.name for name in fields(MagicBertConfig)}
    values = {name: value for name, value in checkpoint.config.items() if name in known}
    try:
        config = MagicBertConfig(**values)
    except Exception as error:  # transformers checks types with errors of several kinds
        raise UserError(f"{checkpoint.name}: config.json: {str(error)[:300]}") from error
    weights = dict(checkpoint.weights)
    head = "none"
    if "transform.dense.weight" in weights:
        head = "masked-lm"
        weights.setdefault(DECODER, weights.get(TABLE, torch.empty(0)))
    elif "discriminator.dense.weight" in weights:
        head = "discriminator"
    if head == "none":
        weights = {name.removeprefix("model."): value for name, value in weights.items()}
    with torch.device("meta"):
        wanted = set(KINDS[head](config).state_dict())
    left = tuple(sorted(weights.keys() - wanted))
    kept = {name: value for name, value in weights.items() if name in wanted}
    model = built(checkpoint.name, head, config, kept)
    return Imported(model, head, MagicBertConfig.model_type, checkpoint.folder, left)


def built(
    name: str, head: str, config: MagicBertConfig, weights: dict[str, Tensor]
) -> EncoderModel:
    """Returns the model of these weights; raises `UserError` if they do not fit its sizes."""
    try:
        with torch.device("meta"):
            model = KINDS[head](config)
        model.load_state_dict(weights, assign=True)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:600]
        raise UserError(f"{name}: the weights do not fit config.json: {text}") from error
    model.tie_weights()
    model.config.architectures = [type(model).__name__]
    model.eval()
    return model


@dataclass
class Conversion:
    """Takes a checkpoint's tensors one by one; each is used once.

    Attributes:
        checkpoint: what is converted.
        family: how it names things.
        config: of the result; says whether the decoder is tied once `run` is through.
        taken: names that have been used.
    """

    checkpoint: Checkpoint
    family: Family
    config: MagicBertConfig
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Finds out whether the encoder's names have a prefix: an encoder alone has none."""
        start = f"{self.family.prefix}."
        has_prefix = any(name.startswith(start) for name in self.checkpoint.weights)
        self.prefix = start if has_prefix else ""

    def run(self) -> tuple[dict[str, Tensor], str]:
        """Returns the weights by our names, and which head they hold."""
        weights = dict(self.embeddings())
        for number in range(self.config.num_hidden_layers // 2):
            weights |= dict(self.layer(number))
        self.refuse_unknown()
        head = next((h for h in self.family.heads if self.has(h)), None)
        if head is None:
            return weights, "none"
        weights = {f"model.{name}": value for name, value in weights.items()}
        return weights | dict(self.head(head, weights[TABLE])), head.kind

    def has(self, head: Head) -> bool:
        """Whether the checkpoint holds a head."""
        return all(f"{name}.weight" in self.checkpoint.weights for name in head.names.values())

    def take(self, name: str) -> Tensor:
        """Returns a tensor of the checkpoint; raises `UserError` if it is not there."""
        value = self.checkpoint.weights.get(name)
        if value is None:
            raise UserError(f"{self.checkpoint.name}: its weights lack {name}")
        self.taken.add(name)
        return value

    def pair(self, ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
        """Yields weight and bias of one module."""
        for kind in ("weight", "bias"):
            yield f"{ours}.{kind}", self.take(f"{theirs}.{kind}")

    def embeddings(self) -> Iterator[tuple[str, Tensor]]:
        """Yields the embeddings; what every token of type 0 gets goes into the positions."""
        start = f"{self.prefix}embeddings."
        yield "embeddings.tokens.weight", self.take(f"{start}word_embeddings.weight")
        positions = self.take(f"{start}position_embeddings.weight")
        types = self.take(f"{start}token_type_embeddings.weight")
        length = self.config.max_position_embeddings
        # RoBERTa's first rows belong to padding and are never the position of a token.
        offset = len(positions) - length if self.family.has_position_offset else 0
        if offset < 0 or types.shape[-1:] != positions.shape[-1:]:
            raise UserError(
                f"{self.checkpoint.name}: the tables of positions {list(positions.shape)} and "
                f"types {list(types.shape)} do not fit config.json"
            )
        yield "embeddings.positions.weight", positions[offset:] + types[0]
        yield from self.pair("embeddings.norm", f"{start}LayerNorm")
        if self.config.embedding_size is not None:
            yield from self.pair("embeddings.project", f"{self.prefix}embeddings_project")

    def layer(self, number: int) -> Iterator[tuple[str, Tensor]]:
        """Yields one Transformer layer: an attention and a feed-forward operator."""
        theirs = f"{self.prefix}encoder.layer.{number}"
        ours = f"encoder.layers.{2 * number}"
        projections = [f"{theirs}.attention.self.{name}" for name in ("query", "key", "value")]
        for kind in ("weight", "bias"):
            parts = [self.take(f"{name}.{kind}") for name in projections]
            yield f"{ours}.query_key_value.{kind}", torch.cat(parts)
        yield from self.pair(f"{ours}.output", f"{theirs}.attention.output.dense")
        yield from self.pair(f"{ours}.norm", f"{theirs}.attention.output.LayerNorm")
        ours = f"encoder.layers.{2 * number + 1}"
        yield from self.pair(f"{ours}.inner", f"{theirs}.intermediate.dense")
        yield from self.pair(f"{ours}.outer", f"{theirs}.output.dense")
        yield from self.pair(f"{ours}.norm", f"{theirs}.output.LayerNorm")

    def head(self, head: Head, table: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yields a head's weights; a decoder that is not the token table stays its own."""
        for ours, theirs in head.names.items():
            yield from self.pair(ours, theirs)
        if not head.decoder:
            return
        is_tied = bool(self.checkpoint.config.get("tie_word_embeddings", True))
        self.config.tie_word_embeddings = is_tied
        if is_tied:  # the same numbers, written twice
            self.taken |= {head.decoder, *head.bias}
        yield "decoder.bias", self.take(head.bias[0] if is_tied else head.bias[1])
        yield DECODER, table if is_tied else self.take(head.decoder)

    def refuse_unknown(self) -> None:
        """Raises `UserError` if a part of the encoder has no place in ours: it would be lost."""
        inside = (f"{self.prefix}embeddings", f"{self.prefix}encoder.")
        lost = [name for name in self.left() if name.startswith(inside)]
        if lost:
            raise UserError(
                f"{self.checkpoint.name}: {', '.join(lost[:3])}"
                f"{f' and {len(lost) - 3} more' if len(lost) > 3 else ''}: this encoder has parts "
                "that ours has not"
            )

    def left(self) -> tuple[str, ...]:
        """Returns the names that nothing took."""
        return tuple(sorted(self.checkpoint.weights.keys() - self.taken))
