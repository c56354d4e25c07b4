"""G3, G4: names that lead out of a run, and model folders that ask for too much."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from matrix import Finding, mutant, peer, row
from safetensors import safe_open
from tiny_bert import save_tiny_bert

from magicbert.config.reading import from_tree
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import run
from magicbert.data.manifest import read_manifest
from magicbert.errors import UserError
from magicbert.finetune import model_folder, pretrained
from magicbert.finetune.tasks import TASKS, find_tasks
from magicbert.records import digest_of, write_record, write_text_atomically
from magicbert.trail import run_folder, stage_folder
from magicbert.training.checkpoints.manifest import problem_of

PARTS = ("..", ".", "/", "\\", "a", "é", "\0", "\n", "~", "$HOME", "%2e%2e", "／", "．．", "∕", "⁄",
         "‥", "\u202e", "\u200b", "outside", "x" * 300, "-", " ", "C:", "//")  # fmt: skip
NAMES = ("..", "../outside", "/etc", "../../outside/secret.txt", "a/../../outside", "a\0b",
         "..\\outside", "．．／outside", "x" * 300, "", ".")  # fmt: skip
MAX_MEGABYTES = 1024


def hostile_names(num_names: int) -> list[str]:
    """Returns fixed and random names."""
    dice = random.Random(7)
    drawn = ["".join(dice.choices(PARTS, k=dice.randint(1, 4))) for _ in range(num_names)]
    return [*NAMES, *drawn]


def tree_of(folder: Path) -> set[str]:
    """Returns everything below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def escaped_by_name(folder: Path, names: list[str]) -> tuple[int, list[str]]:
    """Writes into runs with hostile names; returns refusals and what lies outside."""
    root = folder / "runs"
    root.mkdir()
    before = tree_of(folder)
    num_refused, wrong = 0, []
    for name in names:
        for option in ("name", "label"):
            try:
                tree = {"run": {"root": str(root), option: name}}
                config = from_tree(ExportConfig, tree, "given")
                inside = stage_folder(config.run, "export")
                if inside.parent != run_folder(config.run) or inside.parent.parent != root:
                    wrong.append(f"{option} {name[:30]!r} is taken")
                    continue  # a mutant must not really write there
                write_text_atomically(inside / "config.yaml", name)
            except UserError:
                num_refused += 1
            except Exception as error:
                wrong.append(f"{option} {name[:30]!r}: {type(error).__name__}: {str(error)[:80]}")
        try:
            find_tasks([name], mnli_first=False)
            wrong.append(f"task {name[:30]!r}")
        except UserError:
            num_refused += 1
    outside = {path for path in tree_of(folder) - before if not path.startswith("runs/")}
    return num_refused, [*wrong, *sorted(outside)]


def write_prepared_outside(folder: Path) -> Callable[[], object]:
    """Returns the reading of prepared data whose shard lies elsewhere, all digests right."""
    shard = {"path": "../outside/secret.arrow", "num_rows": 1, "num_bytes": 6, "sha256": "0" * 64}
    payload: dict[str, Any] = {
        "vocab_size": 9, "length": 8, "layout": "full", "pad_id": 0, "cls_id": 1, "sep_id": 2,
        "mask_id": 3, "special_ids": [0, 1, 2, 3], "num_rows": {}, "num_tokens": {},
        "num_documents": {}, "shards": {"train": [shard], "valid": []}, "tokenizer_digest": "",
        "settings": {}, "sources": [], "skipped": [],
    }  # fmt: skip
    shards = {"train": [shard["sha256"]], "valid": []}
    digest = digest_of(["", 8, "full", shards])
    prepared = folder / "prepared"
    prepared.mkdir()
    write_record(prepared / "manifest.json", "magicbert/prepare/1", payload | {"digest": digest})
    return lambda: read_manifest(prepared)


def write_index_outside(folder: Path, name: str = "../outside/secret.safetensors") -> Path:
    """Writes a model folder whose index of weights names a file elsewhere."""
    model = save_tiny_bert(folder / "indexed", ["word"])
    weights = folder / "outside" / "secret.safetensors"
    weights.parent.mkdir(exist_ok=True)
    (model / "model.safetensors").rename(weights)
    with safe_open(weights, "pt") as tensors:
        keys = list(tensors.keys())
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, name)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return model


def read_outside(folder: Path) -> list[str]:
    """Returns which manifests and indices led to a file outside their folder."""
    (folder / "outside").mkdir(exist_ok=True)
    (folder / "outside" / "secret.arrow").write_bytes(b"secret")
    model = write_index_outside(folder)
    checkpoint = folder / "step-1"
    checkpoint.mkdir()
    entry = {"name": "../outside/secret.arrow", "size": 6, "sha256": "0" * 64}
    fields = {"num_ranks": 1, "zero_stage": 1, "config_digest": "", "data_digest": ""}
    payload = {"step": 1, "files": [entry], **fields}
    write_record(checkpoint / "manifest.json", "magicbert/checkpoint/2", payload)
    wrong = []
    if "expected state.json" not in (problem_of(checkpoint) or ""):
        wrong.append(f"checkpoint: {problem_of(checkpoint)}")
    loads = {
        "prepared shard": write_prepared_outside(folder),
        "weight index": lambda: load_model(model),
    }
    for name, load in loads.items():
        try:
            load()
            wrong.append(f"{name}: read from outside")
        except UserError as error:
            if "outside" not in str(error) and "path of a shard" not in str(error):
                wrong.append(f"{name}: {error}")
    return wrong


def load_model(folder: Path) -> object:
    """Loads a model folder as fine-tuning does."""
    start = pretrained.describe_pretrained("mine", str(folder), False)
    return pretrained.load_classifier(start, TASKS["rte"])


def try_to_escape(folder: Path, num_names: int) -> Finding:
    """Tries all names and manifests."""
    names = hostile_names(num_names)
    num_refused, escapes = escaped_by_name(folder, names)
    escapes += read_outside(folder)
    figure = f"{len(names)} names x 3 options, 3 manifests: {len(escapes)} escapes"
    return Finding(not escapes, "; ".join([figure, *escapes[:4]]), num_refused)


@row(
    "G3",
    fault="..,  absolute paths, NUL, 300 letters and look-alikes as run name, label and task; "
    "paths out of the folder in weight index, shard list and checkpoint manifest",
    expected="nothing created or read outside the root",
    tier="P",
)
def traversal(folder: Path, is_thorough: bool) -> Finding:
    return try_to_escape(folder, 2000 if is_thorough else 100)


@mutant("G3", "any name of a run is taken")
def with_any_name(folder: Path, is_thorough: bool) -> Finding:
    with patch.object(run, "is_plain_name", lambda name: True):
        return try_to_escape(folder, 100)


@mutant("G3", "the index of weights is not looked at")
def without_index_check(folder: Path, is_thorough: bool) -> Finding:
    with patch.object(model_folder, "check_weight_index", lambda folder: None):
        return try_to_escape(folder, 0)


@peer("G3", "transformers, index naming ../outside/secret.safetensors")
def with_transformers(folder: Path) -> str:
    from transformers import AutoModelForSequenceClassification

    model = write_index_outside(folder)
    try:
        AutoModelForSequenceClassification.from_pretrained(model)
    except Exception as error:
        return f"refused ({type(error).__name__})"
    return "read from outside"


HOSTILE: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M",
                              "AutoModelForSequenceClassification": "code.M"}},
    "auto_map, foreign type": {"model_type": "foreign", "auto_map": {"AutoConfig": "code.C"}},
    "nested auto_map": {"text_config": {"auto_map": {"AutoModel": "code.M"}}},
    "_attn_implementation_internal": {"_attn_implementation_internal": "evil/kernel"},
    "attn_implementation": {"attn_implementation": "evil/kernel"},
    "nested trust_remote_code": {"sub": [{"trust_remote_code": True}]},
    "hidden_size": {"hidden_size": 10**9},
    "vocab_size": {"vocab_size": 10**12},
    "vocab_size, plausible": {"vocab_size": 10**8},
    "max_position_embeddings": {"max_position_embeddings": 10**9},
    "intermediate_size": {"intermediate_size": 10**11},
    "num_hidden_layers": {"num_hidden_layers": 10**7},
    "type_vocab_size": {"type_vocab_size": 10**10},
    "huge number": {"hidden_size": 10**400},
    "magicbert layers": {"model_type": "magicbert", "architecture": "-".join(["ffn"] * 10**5)},
    "magicbert width": {"model_type": "magicbert", "architecture": "ffn99999999999"},
}  # fmt: skip


def peak_megabytes() -> int:
    """Returns the most memory held since the mark was last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def load_hostile(folder: Path) -> Finding:
    """Loads each hostile folder; its code would leave a marker."""
    marker = folder / "marker"
    Path("/proc/self/clear_refs").write_text("5")
    base, wrong, num_refused = peak_megabytes(), [], 0
    for number, (name, fields) in enumerate(HOSTILE.items()):
        model = save_tiny_bert(folder / str(number), ["word"])
        config = json.loads((model / "config.json").read_text()) | fields
        (model / "config.json").write_text(json.dumps(config))
        (model / "code.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
        try:
            load_model(model)
            wrong.append(f"{name}: loaded")
        except UserError:
            num_refused += 1
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}")
    executed = int(marker.exists())
    over = peak_megabytes() - base
    figure = f"{len(HOSTILE)} folders: {executed} executed, {len(wrong)} loaded, {over} MB more"
    is_fine = not executed and not wrong and over < MAX_MEGABYTES
    return Finding(is_fine, "; ".join([figure, *wrong[:4]]), num_refused)


@row(
    "G4",
    fault="config.json with auto_map, hub kernels, nested trust_remote_code, absurd sizes",
    expected="refused unless trust_remote_code was asked for; nothing runs, memory bounded",
    tier="P",
)
def hostile_models(folder: Path, is_thorough: bool) -> Finding:
    if not Path("/proc/self/clear_refs").exists():
        return Finding.skip("peak memory cannot be reset here (no /proc/self/clear_refs)")
    return load_hostile(folder)


@mutant("G4", "code is not looked for")
def without_code_check(folder: Path, is_thorough: bool) -> Finding:
    # The sizes stay checked: without that, this machine would pay.
    with patch.object(model_folder, "check_code", lambda *_: None):
        return load_hostile(folder)


@mutant("G4", "sizes are not compared with the weights")
def without_size_check(folder: Path, is_thorough: bool) -> Finding:
    # Wrong by little: a size of the other row would cost this machine its memory.
    small = {"type_vocab_size": {"type_vocab_size": 5}}
    with (
        patch.dict(HOSTILE, small, clear=True),
        patch.object(model_folder, "check_sizes", lambda *_: None),
        patch.object(pretrained, "check_encoder", lambda *_: None),
    ):
        return load_hostile(folder)
