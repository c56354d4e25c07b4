"""A frozen model that others learn from: what it computes after some of its layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from magicbert.bert.exported import MANIFEST, verify_export
from magicbert.bert.extraction import extract
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.saving import RECORD, WEIGHTS, load_supernet
from magicbert.data.batch import TokenBatch
from magicbert.errors import UserError
from magicbert.records import file_digest
from magicbert.supernet.supernet import block_ends

TOKENIZER = "tokenizer.json"


class Teacher:
    """A masked-language model without dropout and without gradients.

    Args:
        model: the model; it is frozen and put into evaluation mode.
        digest: of its weights.
    """

    def __init__(self, model: MagicBertForMaskedLM, digest: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.digest = digest

    @property
    def config(self) -> MagicBertConfig:
        """Its sizes."""
        config: MagicBertConfig = self.model.config
        return config

    def to(self, device: torch.device) -> Teacher:
        """Moves the model; returns the teacher itself."""
        self.model.to(device)
        return self

    def block_ends(self, num_blocks: int) -> tuple[int, ...]:
        """Returns after which of its layers (1..L) each block of a student ends.

        Raises:
            UserError: it has fewer layers than there are blocks.
        """
        num_layers = self.config.num_hidden_layers
        if num_layers < num_blocks:
            raise UserError(
                f"the teacher has {num_layers} layers, which do not make {num_blocks} blocks"
            )
        return block_ends(num_layers, num_blocks)

    def sizes(self, num_blocks: int) -> tuple[int, ...]:
        """Returns the widths of its hidden state ahead of the first block and after each."""
        widths = (self.config.entry_size, *self.config.widths)
        return (widths[0], *(widths[end] for end in self.block_ends(num_blocks)))

    @torch.no_grad()
    def states(self, batch: TokenBatch, ends: Sequence[int]) -> tuple[dict[int, Tensor], Segments]:
        """Returns its hidden state after some layers, and the batch's segments.

        Args:
            batch: on the device of the model.
            ends: numbers of layers, 0 = the embeddings; nothing behind the last is computed.
        """
        segments = Segments.of_ids(batch.segment_ids, batch.layout)
        hidden = self.model.model.embeddings(batch.input_ids, segments)
        kept = {0: hidden} if 0 in ends else {}
        for number, layer in enumerate(self.model.model.encoder.layers[: max(ends)], start=1):
            hidden = layer(hidden, segments)
            if number in ends:
                kept[number] = hidden
        return kept, segments

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Returns logits ``[M, vocabulary]`` of last hidden states ``[M, hidden]``."""
        logits: Tensor = self.model.decoder(self.model.transform(hidden))
        return logits


def load_teacher(folder: Path, tokenizer: Path, *, digest: str, length: int) -> Teacher:
    """Loads a model of ours that learners of some prepared data can be taught by.

    Args:
        folder: an exported folder, or the ``model`` folder of a retraining.
        tokenizer: folder of the prepared data's tokenizer.
        digest: of that tokenizer, as the data's manifest has it.
        length: tokens of a prepared row.

    Raises:
        UserError: it is neither, it is damaged, it reads other tokens, or its rows are too short.
    """
    if (folder / RECORD).is_file():
        teacher = _load_trained(folder, digest)
    elif (folder / "config.json").is_file():
        teacher = _load_exported(folder, tokenizer)
    else:
        raise UserError(
            f"{folder}: no model of magicbert; give an exported folder, or the folder `model` of "
            "a retraining (another model becomes one by `magicbert import`)"
        )
    longest = teacher.config.max_position_embeddings
    if longest < length:
        raise UserError(f"{folder}: reads {longest} tokens at most, a prepared row has {length}")
    return teacher


def _load_trained(folder: Path, digest: str) -> Teacher:
    supernet, details = load_supernet(folder)
    if supernet.space.count() != 1:
        raise UserError(f"{folder}: holds a supernet; a teacher is one architecture")
    if details.get("tokenizer_digest") != digest:
        raise _other_tokens(folder)
    (path,) = supernet.space.enumerate()
    return Teacher(extract(supernet, path), file_digest(folder / WEIGHTS))


def _load_exported(folder: Path, tokenizer: Path) -> Teacher:
    if (folder / MANIFEST).is_file():
        verify_export(folder)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder}: config.json cannot be read: {error}") from error
    if kind != MagicBertConfig.model_type:
        raise UserError(
            f"{folder}: a model of type {kind!r}; turn it into one of magicbert's with "
            "`magicbert import`"
        )
    if vocabulary(folder) != vocabulary(tokenizer):
        raise _other_tokens(folder)
    try:
        model, found = MagicBertForMaskedLM.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # from damaged files to sizes that do not fit
        raise UserError(f"{folder}: cannot be loaded: {error}") from error
    if found["missing_keys"]:
        raise UserError(f"{folder}: has no masked-language head; a teacher needs one")
    return Teacher(model, file_digest(folder / WEIGHTS))


def vocabulary(folder: Path) -> Any:
    """Returns the tokens and their ids of the tokenizer in a folder.

    Raises:
        UserError: there is none.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        raise UserError(f"{file}: no such file; a teacher comes with its tokenizer")
    return Tokenizer.from_file(str(file)).get_vocab()


def _other_tokens(folder: Path) -> UserError:
    return UserError(
        f"{folder}: reads other tokens than the prepared data; teacher and student share one "
        "vocabulary: prepare the data with the teacher's tokenizer"
    )
