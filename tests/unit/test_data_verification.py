"""Prepared data is compared with its manifest before anything opens it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_corpus import config_for, make_documents, prepare_folder, write_corpus

from magicbert.cli import parse
from magicbert.data.manifest import read_manifest
from magicbert.data.verification import verify_prepared
from magicbert.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    return prepare_folder(config_for(root, write_corpus(root / "c.txt", make_documents(60))))


@pytest.fixture
def prepared(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "prepare"))


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "name", ["train/00000.arrow", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]
)
def test_one_flipped_bit_is_refused_by_name(prepared: Path, name: str) -> None:
    verify_prepared(prepared)
    damage(prepared / name)
    with pytest.raises(UserError, match=f"{name}: damaged; remove .* and run `magicbert prepare`"):
        verify_prepared(prepared)


def test_a_missing_file_is_refused_by_name(prepared: Path) -> None:
    (prepared / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json: missing"):
        verify_prepared(prepared)


def test_a_manifest_without_tokenizer_files_knows_the_tokenizer_itself(prepared: Path) -> None:
    older = replace(read_manifest(prepared), tokenizer_files={})
    verify_prepared(prepared, older)
    damage(prepared / "tokenizer" / "tokenizer.json")
    with pytest.raises(UserError, match=r"tokenizer\.json: damaged"):
        verify_prepared(prepared, older)


def test_the_check_is_an_option_of_its_own() -> None:
    request = parse(["search", "--verify", "fast"])
    assert request is not None
    assert request.overrides == {"run.verify": "fast"}
