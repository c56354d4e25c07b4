"""F5, F6, F7: damaged vocabularies and binary files, and the round trip of a model."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet
import torch
from exported_run import ARCHITECTURE, WORDS, write_run
from matrix import Finding, mutant, row
from safetensors.torch import load_file, save_file
from tiny_bert import save_tiny_bert

from magicbert.bert import saving
from magicbert.bert.extraction import extract
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import CorpusSection, RunSection, TokenizerSection
from magicbert.data import verification
from magicbert.data.documents import read_documents
from magicbert.data.manifest import read_manifest
from magicbert.data.shards import read_columns, write_columns
from magicbert.data.skipping import Skips
from magicbert.data.sources import resolve_sources
from magicbert.data.tokenizer_loading import load_tokenizer
from magicbert.errors import UserError
from magicbert.finetune import model_folder, pretrained
from magicbert.finetune.pretrained import describe_pretrained, load_classifier
from magicbert.finetune.tasks import TASKS
from magicbert.records import file_digest, read_record
from magicbert.stages import export
from magicbert.training.checkpoints.shard import Shard

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c")
MAX_ABSOLUTE_ERROR = 1e-6
CRASHED, REFUSED, SAME, CHANGED, TRACEBACK = "signal", "refused", "same", "silent", "traceback"


def vocabularies() -> dict[str, bytes]:
    """Returns damaged ``vocab.txt`` files."""
    good = "\n".join(TOKENS)
    return {
        "token twice": f"{good}\na\n".encode(),
        "no mask": good.replace("[MASK]\n", "").encode(),
        "special token misspelt": good.replace("[PAD]", "[PDA]").encode(),
        "empty line": good.replace("a\n", "a\n\n").encode(),
        "latin-1": good.encode() + "\né".encode("latin-1"),
        "empty": b"",
    }


def tokenizers(good: dict[str, Any]) -> dict[str, Any]:
    """Returns damaged ``tokenizer.json`` trees."""

    def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        tree = json.loads(json.dumps(good))
        change(tree)
        return tree

    def without_mask(tree: dict[str, Any]) -> None:
        del tree["model"]["vocab"]["[MASK]"]
        tree["added_tokens"] = []

    return {
        "id far beyond": changed(lambda tree: tree["model"]["vocab"].update(word=10**8)),
        "mask lost": changed(without_mask),
        "no model": changed(lambda tree: tree.pop("model")),
        "unknown model": changed(lambda tree: tree["model"].update(type="Spell")),
        "negative id": changed(lambda tree: tree["model"]["vocab"].update(word=-1)),
    }


def model_damage(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Returns what is done to a model folder whose tokenizer then does not belong to it."""

    def edit(file: str, **fields: Any) -> Callable[[Path], object]:
        def change(model: Path) -> None:
            tree = json.loads((model / file).read_text()) | fields
            (model / file).write_text(json.dumps(tree))

        return change

    def drop_tensor(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        del tensors["bert.encoder.layer.0.attention.self.query.weight"]
        save_file(tensors, model / "model.safetensors", {"format": "pt"})

    other = save_tiny_bert(folder / "other", [f"word{number}" for number in range(50)])
    return {
        "vocabulary of another model": lambda model: shutil.copy(other / "tokenizer.json", model),
        "wrong padding id": edit("config.json", pad_token_id=3),
        "fewer embeddings": edit("config.json", vocab_size=20),
        "tensor missing": drop_tensor,
    }


def load_model(model: Path) -> None:
    """Loads model and tokenizer as fine-tuning does."""
    start = describe_pretrained("mine", str(model), False)
    pretrained.load_tokenizer(start)
    load_classifier(start, TASKS["rte"])


def exported(folder: Path) -> Path:
    """Returns a run with a retrained and an exported model."""
    write_run(folder)
    export.run(ExportConfig(run=RunSection(root=str(folder), name="demo")))
    return folder / "demo"


def flips(run: Path, count: int) -> dict[str, Callable[[], object]]:
    """Returns loadings of an export and of prepared data, each after one bit was flipped."""
    dice = random.Random(3)
    loads: dict[str, Callable[[], object]] = {}
    targets: list[tuple[Path, Callable[[], object]]] = [
        (run / "export" / "tokenizer.json", lambda: load_model(run / "export")),
        (run / "export" / "model.safetensors", lambda: load_model(run / "export")),
        (run / "export" / "config.json", lambda: load_model(run / "export")),
        (run / "prepare" / "tokenizer" / "tokenizer.json", lambda: read_manifest(run / "prepare")),
    ]
    for file, load in targets:
        good = file.read_bytes()
        for number in range(count):
            place, bit = dice.randrange(len(good)), 1 << dice.randrange(8)

            def once(
                file: Path = file, load: Any = load, good: bytes = good,
                place: int = place, bit: int = bit,
            ) -> None:  # fmt: skip
                file.write_bytes(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])
                try:
                    load()
                finally:
                    file.write_bytes(good)

            loads[f"{file.parent.name}/{file.name} flip {number}"] = once
    return loads


def damaged_vocabularies(folder: Path, num_flips: int) -> Finding:
    """Opens everything damaged; all must be refused."""
    loads = flips(exported(folder), num_flips)
    for name, data in vocabularies().items():
        file = folder / f"{name}.txt"
        file.write_bytes(data)
        section = TokenizerSection(kind="load", path=str(file))
        loads[f"vocab.txt {name}"] = lambda section=section: load_tokenizer(section)
    donor = save_tiny_bert(folder / "donor", ["word"])
    for name, tree in tokenizers(json.loads((donor / "tokenizer.json").read_text())).items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps(tree))
        section = TokenizerSection(kind="load", path=str(file))
        loads[f"tokenizer.json {name}"] = lambda section=section: load_tokenizer(section)
    for name, change in model_damage(folder).items():
        model = folder / f"model {name}"
        shutil.copytree(donor, model)
        change(model)
        loads[f"model {name}"] = lambda model=model: load_model(model)
    wrong, num_refused = [], 0
    for name, load in loads.items():
        try:
            load()
            wrong.append(f"{name}: accepted")
        except UserError:
            num_refused += 1
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:60]}")
    figure = f"{len(loads)} damaged files ({4 * num_flips} bit flips): {len(wrong)} accepted"
    return Finding(not wrong, "; ".join([figure, *wrong[:4]]), num_refused)


@row(
    "F5",
    fault="vocabulary damaged: bits flipped, tokens twice, special tokens lost or wrong, ids out "
    "of range, another model's tokenizer, tensors missing",
    expected="refused before training",
    tier="P",
)
def vocabulary_damage(folder: Path, is_thorough: bool) -> Finding:
    return damaged_vocabularies(folder, 50 if is_thorough else 5)


@mutant("F5", "exports are not compared with their manifest")
def without_manifest(folder: Path, is_thorough: bool) -> Finding:
    with patch.object(model_folder, "check_export", lambda folder: None):
        return damaged_vocabularies(folder, 5)


@mutant("F5", "vocabulary and embeddings are not compared")
def without_vocabulary_check(folder: Path, is_thorough: bool) -> Finding:
    with patch.object(pretrained, "check_vocabulary", lambda *_: None):
        return damaged_vocabularies(folder, 1)


def in_a_child(load: Callable[[], object]) -> str:
    """Runs a loading in a forked process; returns what became of it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = 3
        try:
            code = 0 if load() else 1
        except UserError:
            code = 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"{CRASHED} {signal.Signals(os.WTERMSIG(status)).name}"
    return {0: SAME, 1: CHANGED, 2: REFUSED}.get(os.WEXITSTATUS(status), TRACEBACK)


def corpus_of(file: Path) -> list[str]:
    """Reads a corpus file as `prepare` does."""
    (unit,) = resolve_sources((str(file),), Skips("corpus"))
    return list(read_documents(unit, CorpusSection(), Skips(unit.name)))


def binary_files(folder: Path) -> dict[Path, Callable[[], object]]:
    """Writes one file of each format; returns how it is read, true = as it was written."""
    texts = [f"some text {number}" for number in range(200)]
    parquet, jsonl = folder / "a.parquet", folder / "a.jsonl"
    pyarrow.parquet.write_table(pa.table({"text": texts}), parquet)
    jsonl.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    rows, column = folder / "rows.arrow", pa.array([[1, 2, 3]] * 500)
    write_columns(rows, {"ids": column})
    digests = {rows.name: file_digest(rows)}
    shard = folder / "shard.safetensors"
    save_file({"x": torch.arange(64.0)}, shard, {"layout": "{}"})
    model = exported(folder / "runs") / "retrain" / "model"

    def prepared_rows() -> bool:
        verification.verify_files(folder, digests)
        return bool(read_columns(rows).column(0).to_pylist() == column.to_pylist())

    return {
        rows: prepared_rows,
        parquet: lambda: corpus_of(parquet) == texts,
        jsonl: lambda: corpus_of(jsonl) == texts,
        shard: lambda: Shard(shard),
        model / saving.WEIGHTS: lambda: saving.load_supernet(model),
        model / saving.RECORD: lambda: read_record(model / saving.RECORD, saving.SCHEMA),
        folder / "runs" / "demo" / "prepare" / "manifest.json": lambda: read_manifest(
            folder / "runs" / "demo" / "prepare"
        ),
    }


def corrupt(data: bytes, dice: random.Random) -> bytes:
    """Returns the bytes with a flip, a cut, zeros or noise."""
    place = dice.randrange(len(data))
    kind = dice.choice(["flip", "flip", "cut", "zeros", "noise", "length"])
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]
    if kind == "cut":
        return data[:place]
    if kind == "zeros":
        return data[:place] + bytes(min(64, len(data) - place)) + data[place + 64 :]
    if kind == "noise":
        return data[:place] + dice.randbytes(8) + data[place + 8 :]
    return dice.randbytes(8) + data[8:] if place % 2 else data[:-8] + dice.randbytes(8)


def corrupt_all(folder: Path, count: int, only: str = "") -> Finding:
    """Reads many corruptions of every format, each in a process of its own."""
    dice = random.Random(5)
    outcomes: Counter[str] = Counter()
    files = {file: load for file, load in binary_files(folder).items() if only in file.suffix}
    for file, load in files.items():
        good = file.read_bytes()
        for _ in range(count):
            file.write_bytes(corrupt(good, dice))
            outcome = in_a_child(load)
            outcomes[outcome if outcome in (SAME, REFUSED) else f"{file.name} {outcome}"] += 1
        file.write_bytes(good)
    bad = {name: number for name, number in outcomes.items() if name not in (SAME, REFUSED)}
    crashed = sum(number for name, number in bad.items() if CRASHED in name or TRACEBACK in name)
    silent = sum(bad.values()) - crashed
    figure = (
        f"{outcomes.total()} corruptions of {len(files)} files: {crashed} crashes or tracebacks; "
        f"{outcomes[REFUSED]} refused, {silent} read otherwise (formats without a digest)"
    )
    return Finding(not crashed, "; ".join([figure, *map(str, bad.items())]), outcomes[REFUSED])


@row(
    "F6",
    fault="Arrow, Parquet, JSONL, safetensors and records with flipped bits, cuts, zeros and "
    "noise, each read in a process of its own",
    expected="no signal and no traceback reaches the user",
    tier="N",
)
def corrupted_binaries(folder: Path, is_thorough: bool) -> Finding:
    return corrupt_all(folder, 145 if is_thorough else 20)


@mutant("F6", "prepared rows are opened before their digest is compared")
def without_digest(folder: Path, is_thorough: bool) -> Finding:
    with patch.object(verification, "verify_files", lambda *_: None):
        return corrupt_all(folder, 120, only=".arrow")


def round_trip(folder: Path, offset: float = 0.0) -> Finding:
    """Exports, loads with transformers, and exports again."""
    run = exported(folder)
    supernet, _ = saving.load_supernet(run / "retrain" / "model")
    model = extract(supernet, ARCHITECTURE).eval()
    weights = run / "export" / "model.safetensors"
    if offset:
        tensors = load_file(weights)
        name = next(iter(tensors))
        save_file(tensors | {name: tensors[name] + offset}, weights, {"format": "pt"})
    from transformers import AutoModelForMaskedLM

    with patch("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules")):
        loaded = AutoModelForMaskedLM.from_pretrained(run / "export", trust_remote_code=True)
    ids = torch.randint(5, 5 + len(WORDS), (4, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = float((model(ids).logits - loaded(ids).logits).abs().max())
    before = {path.name: path.read_bytes() for path in (run / "export").iterdir()}
    export.run(ExportConfig(run=RunSection(root=str(folder), name="demo")))
    after = {path.name: path.read_bytes() for path in (run / "export").iterdir()}
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    figure = f"max logit difference {difference:.1e}; {len(changed)} files differ at re-export"
    is_fine = difference <= MAX_ABSOLUTE_ERROR and not changed
    return Finding(is_fine, "; ".join([figure, *changed]), 1)


@row(
    "F7",
    fault="trained model exported, loaded by transformers with the folder's own code, and "
    "exported again",
    expected="logits within 1e-6, every byte of the second export equal",
    tier="P",
)
def export_round_trip(folder: Path, is_thorough: bool) -> Finding:
    return round_trip(folder)


@mutant("F7", "one tensor of the export is off by 0.001")
def with_offset(folder: Path, is_thorough: bool) -> Finding:
    return round_trip(folder, 1e-3)
