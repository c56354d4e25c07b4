"""A vocabulary learnt from a bounded sample of the corpus: WordPiece or byte-level BPE."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.normalizers import Normalizer

from magicbert.config.sections import TokenizerSection
from magicbert.data.tokenizer import (
    BERT_TOKENS,
    ROBERTA_TOKENS,
    SpecialTokens,
    TextTokenizer,
    with_template,
)
from magicbert.errors import UserError

MAX_ALPHABET = 1000  # characters a WordPiece vocabulary starts from, as in BERT's; rarer are [UNK]
MAX_WORD_LENGTH = 200  # training time grows with the square of a word's length
LONG_WORD = re.compile(rf"(?<!\S)\S{{{MAX_WORD_LENGTH + 1},}}")
CHARACTERS_PER_COUNT = 1 << 22


def train_tokenizer(section: TokenizerSection, texts: list[str]) -> TextTokenizer:
    """Learns a vocabulary; the same texts give the same one.

    Args:
        section: kind, size and case.
        texts: the sample, held in memory (its size is bounded by ``sample_megabytes``).

    Raises:
        UserError: ``vocab_size`` has no room for the alphabet.
    """
    if section.kind == "wordpiece":
        return _train_wordpiece(section, texts)
    return _train_byte_level(section, texts)


def wordpiece(
    vocabulary: dict[str, int] | None, special: SpecialTokens, lowercase: bool
) -> Tokenizer:
    """Returns BERT's tokenizer (normaliser, words, WordPiece) over a vocabulary."""
    unk = special.unk
    model = (
        models.WordPiece(vocabulary, unk_token=unk)
        if vocabulary
        else models.WordPiece(unk_token=unk)
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(added_tokens(special))
    return tokenizer


def added_tokens(special: SpecialTokens) -> list[AddedToken]:
    """Returns the special tokens for the backend; [MASK] takes the space before it."""
    return [
        AddedToken(text, lstrip=text == special.mask, normalized=False, special=True)
        for text in special.texts()
    ]


def _train_wordpiece(section: TokenizerSection, texts: list[str]) -> TextTokenizer:
    scratch = wordpiece({}, BERT_TOKENS, section.lowercase)
    alphabet = most_common_characters(texts, scratch.normalizer, MAX_ALPHABET)
    fixed = [*BERT_TOKENS.texts(), *(f"##{character}" for character in alphabet)]
    smallest = len(fixed) + len(alphabet)
    if section.vocab_size < smallest:
        raise UserError(
            f"tokenizer.vocab_size: {section.vocab_size} is below {smallest}: the corpus has "
            f"{len(alphabet)} characters, each needs two tokens, and the special tokens"
        )
    # The trainer numbers characters by chance and breaks ties of merges by number, unless it is
    # given them; as "special" tokens it takes them in this order.
    trainer = trainers.WordPieceTrainer(
        vocab_size=section.vocab_size,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    scratch.train_from_iterator(with_short_words(texts), trainer)
    vocabulary = scratch.get_vocab(with_added_tokens=False)
    tokenizer = wordpiece(vocabulary, BERT_TOKENS, section.lowercase)
    return with_template(TextTokenizer(tokenizer, BERT_TOKENS))


def _train_byte_level(section: TokenizerSection, texts: list[str]) -> TextTokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(ROBERTA_TOKENS.texts())
    if section.vocab_size < smallest:
        raise UserError(
            f"tokenizer.vocab_size: {section.vocab_size} is below {smallest}: byte-level BPE "
            "needs a token for every byte and the special tokens"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=section.vocab_size,
        special_tokens=added_tokens(ROBERTA_TOKENS),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(with_short_words(texts), trainer)
    return with_template(TextTokenizer(tokenizer, ROBERTA_TOKENS))


def with_short_words(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts with a space after every 200 characters of a longer "word"."""
    for text in texts:
        yield LONG_WORD.sub(_with_spaces, text)


def _with_spaces(match: re.Match[str]) -> str:
    word = match[0]
    return " ".join(
        word[start : start + MAX_WORD_LENGTH] for start in range(0, len(word), MAX_WORD_LENGTH)
    )


def most_common_characters(texts: Iterable[str], normalizer: Normalizer, limit: int) -> list[str]:
    """Returns the most common characters after normalisation, ties by code point."""
    counts: Counter[str] = Counter()
    for character, count in _count_characters(texts).items():
        for part in normalizer.normalize_str(character):
            if not part.isspace():
                counts[part] += count
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted(ranked[:limit])


def _count_characters(texts: Iterable[str]) -> dict[str, int]:
    """Counts code points with numpy, some megabytes at a time."""
    totals = np.zeros(0x110000, dtype=np.int64)
    for text in _joined(texts, CHARACTERS_PER_COUNT):
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        totals += np.bincount(codes, minlength=len(totals))
    present = np.flatnonzero(totals)
    return {chr(code): int(totals[code]) for code in present.tolist()}


def _joined(texts: Iterable[str], length: int) -> Iterator[str]:
    kept: list[str] = []
    size = 0
    for text in texts:
        kept.append(text)
        size += len(text)
        if size >= length:
            yield "".join(kept)
            kept, size = [], 0
    yield "".join(kept)
