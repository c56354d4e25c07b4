"""Row C5: flipped bits, truncations, zeroed blocks and exchanged files, in everything we read."""

from __future__ import annotations

import functools
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from exported_run import write_run
from forked_ranks import rank_server
from matrix import Finding, mutant, peer, row
from saving_trials import Saving
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert.config.reading import load_config
from magicbert.config.roots import ExportConfig
from magicbert.data import verification
from magicbert.errors import UserError
from magicbert.finetune.model_folder import check_model_folder
from magicbert.stages import export, prepare
from magicbert.training.checkpoints import manifest as checkpoint_manifest

BLOCK = 4096


@dataclass(frozen=True)
class Artefact:
    """A file that is read later on.

    Attributes:
        name: for the figures.
        file: where it lies.
        check: what looks at it before it is used; raises or returns a text if it is refused.
    """

    name: str
    file: Path
    check: Callable[[], str | None]

    def is_refused(self) -> bool:
        """Whether its reader refuses it."""
        try:
            return self.check() is not None
        except UserError:
            return True


def flip(data: bytes, draw: random.Random) -> bytes:
    """Flips one bit."""
    position = draw.randrange(len(data))
    byte = data[position] ^ (1 << draw.randrange(8))
    return data[:position] + bytes([byte]) + data[position + 1 :]


def truncate(data: bytes, draw: random.Random) -> bytes:
    """Cuts the end off."""
    return data[: draw.randrange(len(data))]


def zero(data: bytes, draw: random.Random) -> bytes:
    """Zeroes a block that was not zero, as a file system does after a crash."""
    while True:
        start = draw.randrange(len(data)) // BLOCK * BLOCK
        block = data[start : start + BLOCK]
        if any(block):
            return data[:start] + bytes(len(block)) + data[start + BLOCK :]


DAMAGES = {"flips": flip, "truncations": truncate, "zeroed blocks": zero}


def build(folder: Path) -> list[Artefact]:
    """Writes a checkpoint of two ranks, prepared data and an export; returns what is damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    root, trial = Saving(folder, keep=2).start("checkpoint")
    trial.results()
    step = root / "step-4"
    prepare.run(config_for(folder, write_corpus(folder / "corpus.txt", make_documents(60))))
    prepared = folder / "tiny" / "prepare"
    exported = write_run(folder, "exported") / "export"
    options = {"run.root": str(folder), "run.name": "exported"}
    export.run(load_config(ExportConfig, None, options))

    def of_checkpoint() -> str | None:
        return checkpoint_manifest.problem_of(step)

    def of_prepared() -> None:
        verification.verify_prepared(prepared)

    def of_export() -> None:
        check_model_folder("export", exported, trust_remote_code=False)

    return [
        Artefact("shard", step / "shard-00001.safetensors", of_checkpoint),
        Artefact("state", step / "state.json", of_checkpoint),
        Artefact("checkpoint manifest", step / "manifest.json", of_checkpoint),
        Artefact("prepared rows", next(prepared.glob("train/*.arrow")), of_prepared),
        Artefact("prepared tokenizer", prepared / "tokenizer" / "tokenizer.json", of_prepared),
        Artefact("prepared manifest", prepared / "manifest.json", of_prepared),
        Artefact("exported weights", exported / "model.safetensors", of_export),
        Artefact("exported tokenizer", exported / "tokenizer.json", of_export),
        Artefact("exported config", exported / "config.json", of_export),
        Artefact("export manifest", exported / "manifest.json", of_export),
    ]


def undetected(artefact: Artefact, count: int) -> dict[str, int]:
    """Damages a file in every way; returns how often nobody noticed."""
    assert not artefact.is_refused(), f"{artefact.name} is refused as it was written"
    whole, draw = artefact.file.read_bytes(), random.Random(artefact.name)
    missed = dict.fromkeys(DAMAGES, 0)
    for name, damage in DAMAGES.items():
        for _ in range(count):
            damaged = damage(whole, draw)
            artefact.file.write_bytes(damaged)
            is_harmless = artefact.file.suffix == ".json" and means_the_same(whole, damaged)
            missed[name] += not artefact.is_refused() and not is_harmless
    artefact.file.write_bytes(whole)
    return missed


def means_the_same(one: bytes, other: bytes) -> bool:
    """Whether two JSON texts hold the same values: a newline lost at the end changes nothing."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def exchanged(artefacts: list[Artefact]) -> tuple[int, int]:
    """Exchanges, duplicates and ages the files of a checkpoint; returns tried and noticed."""
    shard = artefacts[0]
    step = shard.file.parent
    other, older = step / "shard-00000.safetensors", step.parent / "step-2"
    noticed = 0
    for source, target in (
        (other, shard.file),
        (older / shard.file.name, shard.file),
        (older / "state.json", step / "state.json"),
        (older / "manifest.json", step / "manifest.json"),
    ):
        whole = target.read_bytes()
        shutil.copyfile(source, target)
        noticed += shard.is_refused()
        target.write_bytes(whole)
    one, two = shard.file.read_bytes(), other.read_bytes()
    shard.file.write_bytes(two)
    other.write_bytes(one)
    noticed += shard.is_refused()
    shard.file.write_bytes(one)
    other.write_bytes(two)
    return 5, noticed


@row(
    "C5",
    fault="bit flips, truncations, zeroed blocks in checkpoints, prepared data, exports; files "
    "exchanged",
    expected="noticed before anything is read from them; a start falls back to the one before",
    tier="P",
)
def corruption(folder: Path, is_thorough: bool) -> Finding:
    artefacts, count = build(folder), 200 if is_thorough else 20
    missed = {artefact.name: undetected(artefact, count) for artefact in artefacts}
    tried, noticed = exchanged(artefacts)
    falls_back = goes_back_to_the_one_before(artefacts[0], folder)
    bad = {name: counts for name, counts in missed.items() if any(counts.values())}
    figure = (
        f"undetected: {sum(sum(m.values()) for m in missed.values())} of {count} flips, {count} "
        f"truncations, {count} zeroed blocks in each of {len(missed)} kinds of file; "
        f"{noticed} of {tried} exchanged files noticed; falls back: {falls_back}"
    )
    figure += f"; missed: {bad}" if bad else ""
    return Finding(
        not bad and noticed == tried and falls_back, figure, 3 * count * len(artefacts) + tried
    )


def goes_back_to_the_one_before(shard: Artefact, folder: Path) -> bool:
    """Starts two ranks on a newest checkpoint with one flipped bit."""
    whole = shard.file.read_bytes()
    shard.file.write_bytes(flip(whole, random.Random(0)))
    root = {"root": str(shard.file.parents[1])}
    work = "saving_worker:load_newest"
    found = rank_server().start(work, 2, folder / "fall-back", root).results()
    shard.file.write_bytes(whole)
    return found == [2, 2]


@contextmanager
def without_digests() -> Iterator[None]:
    """Takes the comparison of digests out, sizes stay: the mutant."""
    modules = (checkpoint_manifest, verification)
    true = checkpoint_manifest.file_digest
    remembered = functools.cache(lambda path: true(path))
    for module in modules:
        module.file_digest = remembered  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.file_digest = true  # type: ignore[attr-defined]


@mutant("C5", "sizes are compared, digests only once")
def sizes_alone(folder: Path, is_thorough: bool) -> Finding:
    with without_digests():
        return corruption(folder, False)


@peer("C5", "torch.save, safetensors: loaded silently after one flipped bit")
def formats(folder: Path) -> str:
    tensors = {"weight": torch.arange(20_000, dtype=torch.float32)}
    stream = io.BytesIO()
    torch.save(tensors, stream)
    readers: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
        "torch.save": (stream.getvalue(), lambda d: torch.load(io.BytesIO(d), weights_only=True)),
        "safetensors": (safetensors.torch.save(tensors), safetensors.torch.load),
    }
    return ", ".join(f"{name} {loads(*entry)} of 200" for name, entry in readers.items())


def loads(whole: bytes, read: Callable[[bytes], object]) -> int:
    """Counts the flips that a reader does not notice."""
    draw, silent = random.Random(0), 0
    for _ in range(200):
        try:
            read(flip(whole, draw))
            silent += 1
        except Exception:
            continue
    return silent
