from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_corpus import make_documents
from tokenizers import Tokenizer, models

from magicbert.config.sections import TokenizerSection
from magicbert.data.encoding import DocumentBatch, Encoder
from magicbert.data.segments import cut
from magicbert.data.tokenizer import TextTokenizer, read_tokenizer, save_tokenizer
from magicbert.data.tokenizer_loading import load_tokenizer
from magicbert.data.tokenizer_training import most_common_characters, train_tokenizer
from magicbert.errors import UserError

TEXTS = make_documents(200)
KINDS = ["wordpiece", "bpe"]


def train(kind: str, vocab_size: int = 400, texts: list[str] | None = None) -> TextTokenizer:
    section = TokenizerSection(kind=kind, vocab_size=vocab_size)  # type: ignore[arg-type]
    return train_tokenizer(section, TEXTS if texts is None else texts)


@pytest.mark.parametrize("kind", KINDS)
def test_auto_tokenizer_loads_what_was_saved(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    trained = train(kind)
    save_tokenizer(trained, tmp_path / "tokenizer", max_length=64)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = "terka lomi undro."

    assert loaded.is_fast
    assert len(loaded) == trained.vocab_size == 400
    assert loaded.model_max_length == 64
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(loaded, f"{role}_token") == getattr(trained.special, role)
        assert getattr(loaded, f"{role}_token_id") == trained.id_of(role)
    assert sorted(loaded.all_special_ids) == list(trained.special_ids())
    ids = loaded(text)["input_ids"]
    assert ids == trained.backend.encode(text).ids
    assert (ids[0], ids[-1]) == (loaded.cls_token_id, loaded.sep_token_id)
    decoded = loaded.decode(ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_have_one_separator_and_token_types(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(train(kind), tmp_path / "tokenizer", max_length=64)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    pair = loaded("ka lo", "mi")
    first, second = loaded("ka lo")["input_ids"], loaded("mi")["input_ids"]

    assert pair["input_ids"] == first + second[1:]
    assert pair["token_type_ids"] == [0] * len(first) + [1] * (len(second) - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_in_another_process(kind: str) -> None:
    # More characters than the alphabet may hold, all equally rare: ties are not left to chance.
    program = (
        "import hashlib; from tiny_corpus import make_documents;"
        "from magicbert.config.sections import TokenizerSection;"
        "from magicbert.data.tokenizer_training import train_tokenizer;"
        "texts = make_documents(50) + [chr(0x4e00 + i) for i in range(1500)];"
        f"section = TokenizerSection(kind={kind!r}, vocab_size=2300);"
        "text = train_tokenizer(section, texts).backend.to_str();"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    path = str(Path(__file__).parents[1])
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": path, "PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert len(digests) == 1


@pytest.mark.parametrize(("kind", "least"), [("wordpiece", "605"), ("bpe", "261")])
def test_a_vocabulary_below_the_alphabet_is_refused(kind: str, least: str) -> None:
    texts = [chr(0x4E00 + i) for i in range(300)]
    with pytest.raises(UserError, match=rf"vocab_size: 150 is below {least}"):
        train(kind, vocab_size=150, texts=texts)


def test_one_endless_word_does_not_stop_the_training() -> None:
    trained = train("wordpiece", texts=[*TEXTS, "ab" * 500_000])

    assert trained.vocab_size == 400


def test_most_common_characters_are_normalised_and_ranked() -> None:
    normalizer = train("wordpiece").backend.normalizer

    assert most_common_characters(["BbÉe e", "c z"], normalizer, 3) == ["b", "c", "e"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [7, 50, 10_000])
def test_cut_documents_give_the_tokens_of_the_whole(kind: str, max_length: int) -> None:
    backend = train(kind).backend
    text = "\n\n".join(make_documents(5, seed=9))
    pieces = list(cut(text, max(max_length, 40)))
    tokens = [
        token for piece in pieces for token in backend.encode(piece, add_special_tokens=False).ids
    ]

    assert "".join(pieces) == text
    assert tokens == backend.encode(text, add_special_tokens=False).ids


def test_a_word_longer_than_a_segment_is_cut_anyway() -> None:
    pieces = list(cut("x" * 1000, 64))

    assert "".join(pieces) == "x" * 1000
    assert max(map(len, pieces)) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_looks_like_a_special_token_stays_text(tmp_path: Path, kind: str) -> None:
    import numpy as np

    save_tokenizer(train(kind), tmp_path / "tokenizer", max_length=64)
    texts = ["ka [MASK] lo <mask> mi", "[CLS]<s>", "", "ter [PAD]<pad>[SEP]</s>"]
    encoded = Encoder(tmp_path / "tokenizer")(DocumentBatch(np.arange(4), texts))
    tokenizer = read_tokenizer(tmp_path / "tokenizer")

    special = set(tokenizer.special_ids()) - {tokenizer.id_of("unk")}
    assert special.isdisjoint(encoded.ids.tolist())
    assert encoded.lengths.sum() == len(encoded.ids)
    assert (encoded.lengths > 0).tolist() == [True, True, False, True]


def write_vocabulary(path: Path, tokens: list[str]) -> TokenizerSection:
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return TokenizerSection(kind="load", path=str(path))


def test_a_vocabulary_file_keeps_its_ids(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "##ly", "world"]
    tokenizer = load_tokenizer(write_vocabulary(tmp_path / "vocab.txt", tokens))

    assert tokenizer.backend.encode("Helloly WORLD x").ids == [3, 6, 7, 8, 2, 4]
    assert tokenizer.vocab_size == len(tokens)
    assert tokenizer.special_ids() == (0, 2, 3, 4, 5)


def test_only_line_feeds_end_a_token(tmp_path: Path) -> None:
    """A line separator inside a token would shift the ids of all that follow."""
    path = tmp_path / "vocab.txt"
    path.write_bytes("[PAD]\r\n[UNK]\r\n[CLS]\n[SEP]\n[MASK]\nx\u2028y\nafter\n".encode())
    backend = load_tokenizer(TokenizerSection(kind="load", path=str(path))).backend
    assert backend.token_to_id("after") == 6
    path.write_bytes(b"[PAD]\n[UNK]\n\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(UserError, match=r"vocab\.txt:3: empty line"):
        load_tokenizer(TokenizerSection(kind="load", path=str(path)))


def test_bad_vocabularies_are_named(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    with pytest.raises(UserError, match=r"vocab\.txt: must hold the special tokens"):
        load_tokenizer(write_vocabulary(path, ["a", "b"]))
    with pytest.raises(UserError, match=r"vocab\.txt: 1 tokens stand in it twice"):
        load_tokenizer(write_vocabulary(path, ["[PAD]", "a", "a"]))
    path.write_bytes(b"ok\n\xff")
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 3\)"):
        load_tokenizer(TokenizerSection(kind="load", path=str(path)))
    with pytest.raises(UserError, match="no such file or folder"):
        load_tokenizer(TokenizerSection(kind="load", path=str(tmp_path / "gone.json")))
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(UserError, match=r"t\.json: not a tokenizer\.json"):
        load_tokenizer(TokenizerSection(kind="load", path=str(tmp_path / "t.json")))
    Tokenizer(models.BPE()).save(str(tmp_path / "t.json"))
    with pytest.raises(UserError, match="must hold the special tokens"):
        load_tokenizer(TokenizerSection(kind="load", path=str(tmp_path / "t.json")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_loads_again_from_its_file_and_folder(tmp_path: Path, kind: str) -> None:
    trained = train(kind)
    save_tokenizer(trained, tmp_path / "tokenizer", max_length=64)

    for path in (tmp_path / "tokenizer", tmp_path / "tokenizer" / "tokenizer.json"):
        loaded = load_tokenizer(TokenizerSection(kind="load", path=str(path)))
        assert loaded.special == trained.special
        assert loaded.backend.encode("terka lomi").ids == trained.backend.encode("terka lomi").ids
