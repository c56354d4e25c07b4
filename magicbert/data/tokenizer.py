"""Tokenizers as values: saved so that ``transformers.AutoTokenizer`` loads them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, processors

from magicbert.errors import UserError
from magicbert.records import file_digest

MAX_UNUSED_IDS = 1024  # some vocabularies leave a few ids free
ROLES = ("pad", "unk", "cls", "sep", "mask")


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens by role, as text."""

    pad: str
    unk: str
    cls: str
    sep: str
    mask: str

    def texts(self) -> list[str]:
        """Returns the five tokens in the order of `ROLES`."""
        return [getattr(self, role) for role in ROLES]


BERT_TOKENS = SpecialTokens(pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]")
ROBERTA_TOKENS = SpecialTokens(pad="<pad>", unk="<unk>", cls="<s>", sep="</s>", mask="<mask>")


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and what its special tokens are for.

    Attributes:
        backend: of the ``tokenizers`` package.
        special: its special tokens.
    """

    backend: Tokenizer
    special: SpecialTokens

    def __post_init__(self) -> None:
        missing = [text for text in self.special.texts() if self.backend.token_to_id(text) is None]
        if missing:
            raise UserError(f"tokenizer: special tokens {', '.join(missing)} are not in it")
        if len({self.special.pad, self.special.cls, self.special.sep, self.special.mask}) < 4:
            raise UserError(f"tokenizer: special tokens must be distinct: {self.special.texts()}")
        num_tokens = self.backend.get_vocab_size(with_added_tokens=True)
        if self.vocab_size > num_tokens + MAX_UNUSED_IDS:
            raise UserError(
                f"tokenizer: its highest id is {self.vocab_size - 1}, but it has {num_tokens} "
                "tokens: the file is damaged"
            )

    @property
    def vocab_size(self) -> int:
        """Rows an embedding table needs: the highest id and one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def id_of(self, role: str) -> int:
        """Returns the id of ``pad``, ``unk``, ``cls``, ``sep`` or ``mask``."""
        number = self.backend.token_to_id(getattr(self.special, role))
        assert number is not None  # checked at construction
        return number

    def special_ids(self) -> tuple[int, ...]:
        """Returns the ids of all special tokens, also those without a role."""
        added = self.backend.get_added_tokens_decoder()
        special = {number for number, token in added.items() if token.special}
        return tuple(sorted(special | {self.id_of(role) for role in ROLES}))


def with_template(tokenizer: TextTokenizer) -> TextTokenizer:
    """Sets the post-processor: ``[CLS] A [SEP]`` and ``[CLS] A [SEP] B [SEP]``.

    Also for byte-level vocabularies: one separator between texts, as in the rows of pretraining.
    """
    cls, sep = tokenizer.special.cls, tokenizer.special.sep
    tokenizer.backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, tokenizer.id_of("cls")), (sep, tokenizer.id_of("sep"))],
    )
    return tokenizer


def save_tokenizer(tokenizer: TextTokenizer, folder: Path, *, max_length: int) -> str:
    """Writes a folder that ``AutoTokenizer.from_pretrained`` loads; returns its digest.

    The folder appears whole or not at all.

    Args:
        tokenizer: what to save.
        folder: replaced when it exists.
        max_length: tokens of a row, which becomes ``model_max_length``.
    """
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tokenizer.backend.save(str(aside / "tokenizer.json"))
    named = {f"{role}_token": getattr(tokenizer.special, role) for role in ROLES}
    settings = {
        # The class name that every version of transformers since 4 knows.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **named,
    }
    (aside / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return file_digest(folder / "tokenizer.json")


def read_tokenizer(folder: Path) -> TextTokenizer:
    """Reads what `save_tokenizer` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        special = SpecialTokens(**{role: settings[f"{role}_token"] for role in ROLES})
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the tokenizers package raises plain Exception
        raise UserError(f"{folder}: damaged: {error}") from error
    return TextTokenizer(backend, special)
