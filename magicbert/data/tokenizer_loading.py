"""Existing vocabularies: ``vocab.txt``, ``tokenizer.json``, a folder, or a name on the hub."""

from __future__ import annotations

import os
from pathlib import Path

from tokenizers import Tokenizer

from magicbert.config.sections import TokenizerSection
from magicbert.data.tokenizer import (
    BERT_TOKENS,
    ROBERTA_TOKENS,
    ROLES,
    SpecialTokens,
    TextTokenizer,
    with_template,
)
from magicbert.data.tokenizer_training import wordpiece
from magicbert.errors import UserError


def load_tokenizer(section: TokenizerSection) -> TextTokenizer:
    """Loads the tokenizer that ``tokenizer.path`` names; environment variables are replaced.

    Raises:
        UserError: it cannot be read, or it lacks a special token.
    """
    path = Path(os.path.expandvars(section.path)).expanduser()
    if path.is_file() and path.suffix == ".txt":
        return with_template(_from_vocabulary(path, section.lowercase))
    if path.is_file():
        return with_template(_from_json(path))
    is_local = path.suffix in (".txt", ".json") or section.path.startswith((".", "/", "~", "$"))
    if is_local and not path.is_dir():
        raise UserError(f"tokenizer.path: {section.path}: no such file or folder")
    return with_template(_from_hub(str(path)))


def _from_vocabulary(path: Path, lowercase: bool) -> TextTokenizer:
    """Reads one token a line, its id being the number of the line."""
    try:
        # Line feeds only: other separators of lines, such as U+2028, are characters of tokens.
        tokens = path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start})") from error
    tokens = [token.removesuffix("\r") for token in tokens]
    repeated = len(tokens) - len(set(tokens))
    if repeated:
        raise UserError(f"{path}: {repeated} tokens stand in it twice")
    if "" in tokens:
        raise UserError(f"{path}:{tokens.index('') + 1}: empty line where a token should be")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    special = _recognised(path, vocabulary)
    return TextTokenizer(wordpiece(vocabulary, special, lowercase), special)


def _from_json(path: Path) -> TextTokenizer:
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exception
        raise UserError(f"{path}: not a tokenizer.json: {error}") from error
    return TextTokenizer(backend, _recognised(path, backend.get_vocab(with_added_tokens=True)))


def _recognised(path: Path, vocabulary: dict[str, int]) -> SpecialTokens:
    """Returns BERT's or RoBERTa's special tokens, whichever are in the vocabulary."""
    for special in (BERT_TOKENS, ROBERTA_TOKENS):
        if all(text in vocabulary for text in special.texts()):
            return special
    names = " or ".join(" ".join(special.texts()) for special in (BERT_TOKENS, ROBERTA_TOKENS))
    raise UserError(f"{path}: must hold the special tokens {names}; give a folder to name others")


def _from_hub(name: str) -> TextTokenizer:
    """Reads a folder or hub name with transformers, which knows the roles of special tokens."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # from the network to the format, transformers raises many kinds
        raise UserError(f"tokenizer.path: {name}: cannot be loaded: {error}") from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"tokenizer.path: {name}: has no fast tokenizer (tokenizer.json)")
    roles = {role: getattr(loaded, f"{role}_token") for role in ROLES}
    missing = [role for role, text in roles.items() if text is None]
    if missing:
        raise UserError(f"tokenizer.path: {name}: has no {', '.join(missing)} token")
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return TextTokenizer(copy, SpecialTokens(**{role: str(text) for role, text in roles.items()}))
