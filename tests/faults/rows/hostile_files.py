"""G1: a pickle that runs code, in the place of every file the program can open."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from exported_run import write_run
from matrix import Finding, mutant, peer, row
from tiny_bert import save_tiny_bert

from magicbert.bert import saving
from magicbert.config.sections import CorpusSection, TokenizerSection
from magicbert.data.documents import read_documents
from magicbert.data.shards import read_columns
from magicbert.data.skipping import Skips
from magicbert.data.sources import resolve_sources
from magicbert.data.tokenizer import read_tokenizer
from magicbert.data.tokenizer_loading import load_tokenizer
from magicbert.errors import UserError
from magicbert.finetune.pretrained import describe_pretrained, load_classifier
from magicbert.finetune.pretrained import load_tokenizer as load_model_tokenizer
from magicbert.finetune.tasks import TASKS
from magicbert.finetune.tsv import read_table
from magicbert.records import file_digest, read_record, write_record
from magicbert.training.checkpoints.shard import Shard

ROOT = Path(__file__).parents[3]
DEEPSPEED_SCRIPT = """
import sys, deepspeed, torch
from magicbert.training.starting.environment import prepare_operators, single_rank
prepare_operators()
with single_rank():
    deepspeed.init_distributed("gloo")
    model = torch.nn.Linear(2, 2)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        config={"train_batch_size": 1},
    )
    engine.load_checkpoint(sys.argv[1])
"""


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


def bombs(marker: Path) -> dict[str, bytes]:
    """Returns the bomb in the wrappings in which pickles travel."""
    plain = pickle.dumps(Bomb(marker))
    archive = io.BytesIO()
    torch.save(Bomb(marker), archive)
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (117 - len(header)) + b"\n"
    numpy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + plain
    return {"pickle": plain, "torch": archive.getvalue(), "numpy": numpy}


def model_with(folder: Path, file: str, data: bytes, *, remove: str = "") -> Callable[[], object]:
    """Returns the loading of a model folder of which one file is the bomb."""
    save_tiny_bert(folder, ["word"])
    if remove:
        (folder / remove).unlink()
    (folder / file).write_bytes(data)

    def load() -> None:
        start = describe_pretrained("mine", str(folder), False)
        load_model_tokenizer(start)
        load_classifier(start, TASKS["rte"])

    return load


def supernet_with(folder: Path, data: bytes) -> Callable[[], object]:
    """Returns the loading of a supernet whose weights are the bomb, its record made to match."""
    write_run(folder)
    model = folder / "demo" / "retrain" / "model"
    (model / saving.WEIGHTS).write_bytes(data)
    record = read_record(model / saving.RECORD, saving.SCHEMA)
    record["weights_sha256"] = file_digest(model / saving.WEIGHTS)
    write_record(model / saving.RECORD, saving.SCHEMA, record)
    return lambda: saving.load_supernet(model)


def corpus_with(file: Path) -> Callable[[], object]:
    """Returns the reading of a corpus file."""

    def read() -> None:
        (unit,) = resolve_sources((str(file),), Skips("corpus"))
        list(read_documents(unit, CorpusSection(), Skips(unit.name)))

    return read


def entry_points(folder: Path, data: bytes) -> dict[str, Callable[[], object]]:
    """Returns every way into the program, each with the bomb in it."""
    files = {}
    for name in ("a.txt", "a.txt.gz", "a.jsonl", "a.parquet", "a.npy", "a.pkl", "a.tsv",
                 "a.tsv.gz", "a.arrow", "a.json", "vocab.txt", "tokenizer.json",
                 "shard-00000.safetensors"):  # fmt: skip
        files[name] = folder / name
        files[name].write_bytes(data)
    prepared = folder / "prepared-tokenizer"
    shutil.copytree(save_tiny_bert(folder / "donor", ["word"]), prepared)
    (prepared / "tokenizer.json").write_bytes(data)
    loads: dict[str, Callable[[], object]] = {
        f"corpus {name}": corpus_with(files[name])
        for name in ("a.txt", "a.txt.gz", "a.jsonl", "a.parquet", "a.npy", "a.pkl")
    }
    loads |= {
        "task a.tsv": lambda: read_table(files["a.tsv"]),
        "task a.tsv.gz": lambda: read_table(files["a.tsv.gz"]),
        "rows a.arrow": lambda: read_columns(files["a.arrow"]),
        "record a.json": lambda: read_record(files["a.json"], "magicbert/prepare/1"),
        "prepared tokenizer": lambda: read_tokenizer(prepared),
        "checkpoint shard": lambda: Shard(files["shard-00000.safetensors"]),
        "supernet weights": supernet_with(folder / "run", data),
    }
    for name in ("vocab.txt", "tokenizer.json"):
        section = TokenizerSection(kind="load", path=str(files[name]))
        loads[f"tokenizer {name}"] = lambda section=section: load_tokenizer(section)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        loads[f"model {name}"] = model_with(folder / f"model-{name}", name, data)
    loads["model pytorch_model.bin"] = model_with(
        folder / "model-bin", "pytorch_model.bin", data, remove="model.safetensors"
    )
    return loads


def harmless_neighbours(folder: Path, data: bytes) -> dict[str, Callable[[], object]]:
    """Returns model folders whose bomb is a file that is never opened."""
    names = (
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "pytorch_model.bin",
    )
    return {name: model_with(folder / f"beside-{name}", name, data) for name in names}


def explode(folder: Path, wrappings: tuple[str, ...]) -> Finding:
    """Opens every entry point with every wrapping."""
    marker = folder / "marker"
    executed, wrong, num_points = [], [], 0
    pickle.loads(bombs(marker)["pickle"])  # the bomb does work
    num_fired = int(marker.is_dir())
    marker.rmdir()
    for wrapping in wrappings:
        inner = folder / wrapping
        inner.mkdir()
        data = bombs(marker)[wrapping]
        may_load = harmless_neighbours(inner, data)
        for name, load in (entry_points(inner, data) | may_load).items():
            num_points += 1
            try:
                load()
                if name not in may_load:
                    wrong.append(f"{name} ({wrapping}): read")
            except UserError as error:
                if name in may_load:
                    wrong.append(f"{name}: {error}")
            except Exception as error:
                wrong.append(f"{name} ({wrapping}): {type(error).__name__}: {str(error)[:80]}")
            if marker.exists():
                executed.append(name)
                marker.rmdir()
    figure = f"{len(executed)} executed of {num_points} entry points; {len(wrong)} not refused"
    return Finding(not executed and not wrong, "; ".join([figure, *executed, *wrong]), num_fired)


@row(
    "G1",
    fault="a pickle that runs code in place of every file that can be opened (plain, torch, numpy)",
    expected="nothing runs; refused by name",
    tier="P",
)
def pickle_bombs(folder: Path, is_thorough: bool) -> Finding:
    return explode(folder, ("pickle", "torch", "numpy") if is_thorough else ("torch",))


@mutant("G1", "weights are read with torch.load")
def with_torch_load(folder: Path, is_thorough: bool) -> Finding:
    def unsafe(path: Path) -> object:
        # Given a path of this name, torch itself would read safetensors.
        return torch.load(io.BytesIO(path.read_bytes()), weights_only=False)

    with patch.object(saving, "load_file", unsafe):
        return explode(folder, ("torch",))


@peer("G1", "DeepSpeed load_checkpoint")
def with_deepspeed(folder: Path) -> str:
    marker, step = folder / "marker", folder / "global_step1"
    step.mkdir()
    (folder / "latest").write_text("global_step1")
    (step / "mp_rank_00_model_states.pt").write_bytes(bombs(marker)["torch"])
    subprocess.run(
        [sys.executable, "-c", DEEPSPEED_SCRIPT, str(folder)],
        cwd=ROOT, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    return "code executed" if marker.exists() else "code not executed"
