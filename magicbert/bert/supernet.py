"""The BERT supernet: candidates per layer under shared embeddings, and the masked-language head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import ClassVar, TypeVar, cast

import torch
import torch.nn.functional as F
from magicbert_kernels.backend import Backend
from magicbert_kernels.linear_cross_entropy import linear_cross_entropy
from magicbert_kernels.mixed_operators import OperatorRows
from torch import Tensor, nn

from magicbert.bert.mixed_convolutions import MixedConvolutions, convolution_family
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.embeddings import Embeddings
from magicbert.bert.modeling.fused import backend_on
from magicbert.bert.modeling.heads import PredictionTransform
from magicbert.bert.modeling.initialization import initialize
from magicbert.bert.modeling.operators import build_layer
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.spaces import check_operators, outline_of
from magicbert.config.sections import ModelSection
from magicbert.data.batch import TokenBatch
from magicbert.space import SearchSpace
from magicbert.supernet.row_groups import RowGroup
from magicbert.supernet.supernet import Supernet

Module = TypeVar("Module", bound=nn.Module)


class EncoderSupernet(Supernet):
    """Every layer holds its candidates; the embeddings are shared by all paths.

    The modules are those of the exported encoder. Each candidate's initial weights depend on the
    seed, its layer and its name alone: a supernet over fewer candidates starts from the same ones.
    What stands on top of the encoder depends on the objective; a subclass brings it.

    Attributes:
        left_behind: how the names of parameters begin that training alone needs; they are not
            saved, exported or counted.

    Args:
        space: candidates per layer.
        config: sizes; its ``architecture`` is not read.
        seed: of the initial weights.
    """

    left_behind: ClassVar[tuple[str, ...]] = ()

    def __init__(self, space: SearchSpace, config: MagicBertConfig, seed: int) -> None:
        names = (name for candidates in space.layers for name in candidates)
        check_operators(names, config.hidden_size, "space")
        outline = outline_of(space, config)
        before = (outline.entry_size, *outline.widths)

        def candidate(layer: int, name: str) -> nn.Module:
            key = f"{seed}:layers.{layer}.{name}"
            return seeded_module(
                lambda: build_layer(name, config, before[layer]), config.initializer_range, key
            )

        super().__init__(space, candidate)
        self.config, self.outline, self.seed = config, outline, seed
        self.embeddings = self.seeded("embeddings", lambda: Embeddings(outline))

    def seeded(self, name: str, factory: Callable[[], Module]) -> Module:
        """Builds a part that all paths share; its weights depend on the seed and its name."""
        key = f"{self.seed}:{name}"
        return seeded_module(factory, self.config.initializer_range, key)

    def kept_state(self) -> dict[str, Tensor]:
        """Returns the weights that a saved model has."""
        state: dict[str, Tensor] = self.state_dict()
        return {name: v for name, v in state.items() if not name.startswith(self.left_behind)}

    def segments(self, batch: TokenBatch) -> Segments:
        """Returns which positions of a batch belong together."""
        return Segments.of_ids(batch.segment_ids, batch.layout)

    def enter(self, batch: TokenBatch) -> tuple[Tensor, Segments]:
        """Returns the embedded batch and its segments."""
        segments = self.segments(batch)
        return self.embeddings(batch.input_ids, segments), segments

    def valid_positions(self, context: Segments) -> Tensor | None:
        """Returns where there is no padding; ``None`` = everywhere."""
        return context.valid

    def select_rows(self, context: Segments, rows: Tensor) -> Segments:
        """Returns the segments of some rows."""
        return context.select(rows)

    def family(self, layer: int, name: str) -> str:
        """Returns what convolutions that the kernels take together have in common.

        They do in evaluation, where Triton runs: its kernels have no gradient, and plain torch
        has nothing to gain (see `kernels/README.md`).
        """
        operator = self.operator(layer, name)
        if torch.is_grad_enabled() or operator.training:
            return name
        backend = backend_on(self.config.backend, self.embeddings.tokens.weight.device.type)
        return (backend == "triton" and convolution_family(operator)) or name

    def run_family(self, layer: int, group: RowGroup, hidden: Tensor, context: Segments) -> Tensor:
        """Runs one operator on its rows, or several convolutions at once, each on its own.

        These read the candidates' weights without calling the modules: they must be whole here,
        which those of ZeRO stage 3 are not outside a module's call.
        """
        if len(group.names) == 1:
            return super().run_family(layer, group, hidden, context)
        ids = None if context.ids is None else context.ids.index_select(0, group.rows)
        operators = OperatorRows(group.sizes, group.operator_ids, group.ends)
        candidates = [self.operator(layer, name) for name in group.names]
        return MixedConvolutions(operators, ids, "triton").run(candidates, hidden)


class BertSupernet(EncoderSupernet):
    """The supernet of masked language modelling: its head is shared by all paths too.

    Args:
        space: candidates per layer.
        config: sizes; its ``architecture`` is not read.
        seed: of the initial weights.
    """

    def __init__(self, space: SearchSpace, config: MagicBertConfig, seed: int) -> None:
        super().__init__(space, config, seed)
        self.transform = self.seeded("transform", lambda: PredictionTransform(self.outline))
        # The decoder's weight is the token table; only its bias is a parameter of its own.
        self.decoder_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def predict(self, hidden: Tensor) -> Tensor:
        """Returns logits ``[M, vocabulary]`` of some positions' hidden states ``[M, hidden]``."""
        return F.linear(self.transform(hidden), self.embeddings.tokens.weight, self.decoder_bias)

    def prediction_loss(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cross-entropy of `predict` without keeping its logits.

        Args:
            hidden: of the predicted positions, ``[M, hidden]``.
            labels: int64 ``[M]``.

        Returns:
            The sum of the losses, fp32, and how many of the predictions are right.
        """
        table, backend = self.embeddings.tokens.weight, self.config.backend
        return token_loss(self.transform(hidden), table, self.decoder_bias, labels, backend)


def token_loss(
    transformed: Tensor, table: Tensor, bias: Tensor, labels: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    """Returns the cross-entropy of a tied decoder without keeping its logits.

    Args:
        transformed: what the decoder reads, ``[M, table width]``.
        table: of the tokens, ``[vocabulary, table width]``.
        bias: ``[vocabulary]``.
        labels: int64 ``[M]``.
        backend: as the configuration says.

    Returns:
        The sum of the losses, fp32, and how many of the predictions are right.
    """
    kernels = cast(Backend, backend_on(backend, transformed.device.type))
    return linear_cross_entropy(transformed, table, bias, labels, backend=kernels)


def build_supernet(
    space: SearchSpace,
    model: ModelSection,
    vocab_size: int,
    pad_token_id: int,
    *,
    seed: int,
    backend: str = "auto",
) -> BertSupernet:
    """Builds a supernet with new weights, which are a function of the seed.

    Args:
        space: candidates per layer; a space of one architecture makes a plain model.
        model: sizes and dropout.
        vocab_size: tokens of the prepared data.
        pad_token_id: id of the padding token.
        seed: of the initial weights.
        backend: which kernels to use.

    Raises:
        UserError: an operator is unknown or does not fit the hidden size.
    """
    return BertSupernet(space, supernet_config(model, vocab_size, pad_token_id, backend), seed)


def supernet_config(
    model: ModelSection, vocab_size: int, pad_token_id: int, backend: str = "auto"
) -> MagicBertConfig:
    """Returns the sizes of a supernet; they name no architecture."""
    return MagicBertConfig(
        architecture="",
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        embedding_size=model.embedding_size or None,
        max_position_embeddings=model.max_length,
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=model.attention_dropout,
        initializer_range=model.initializer_range,
        position_initializer_range=model.position_initializer_range or None,
        pad_token_id=pad_token_id,
        backend=backend,
    )


def seeded_module(factory: Callable[[], Module], std: float, key: str) -> Module:
    """Builds and initialises a module from a key, leaving the global generator as it was."""
    digest = hashlib.sha256(key.encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8]) >> 1)
        module = factory()
        module.apply(lambda part: initialize(part, std))
    return module
