"""Run by a bare interpreter: loads an exported folder in every way and prints what it saw.

Usage: python -I -S exported_model_probe.py FOLDER SITE_PACKAGES OUTPUT
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import sys
from pathlib import Path


class Refuse(importlib.abc.MetaPathFinder):
    """Makes magicbert unimportable, should it be installed as a plain package."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.split(".")[0] in ("magicbert", "magicbert_kernels"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


folder, site_packages, output = sys.argv[1:]
# Without `site` no .pth file is read, so an editable install of magicbert is not seen either.
sys.path.append(site_packages)
sys.meta_path.insert(0, Refuse())

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import pipeline  # noqa: E402

KINDS = (
    "AutoModel",
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
)


def importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def load(kind: str, place: str | Path) -> torch.nn.Module:
    return getattr(transformers, kind).from_pretrained(place, trust_remote_code=True).eval()


expected = load_file(Path(folder).parent / "expected.safetensors")
inputs, mask = expected["input_ids"], expected["attention_mask"]
models = {kind: load(kind, folder) for kind in KINDS}
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
masked = models["AutoModelForMaskedLM"]
with torch.inference_mode():
    logits = masked(inputs, attention_mask=mask).logits
    hidden = models["AutoModel"](inputs, attention_mask=mask).last_hidden_state
valid = mask > 0
masked.save_pretrained(Path(output).parent / "again")
tokenizer.save_pretrained(Path(output).parent / "again")
again = load("AutoModelForMaskedLM", Path(output).parent / "again")
text = f"the old {tokenizer.mask_token} left harbour"
by_folder = pipeline("fill-mask", model=folder, trust_remote_code=True, top_k=3)
report = {
    "magicbert": [name for name in ("magicbert", "magicbert_kernels") if importable(name)],
    "classes": {kind: type(model).__name__ for kind, model in models.items()},
    "logits_error": (logits - expected["logits"])[valid].abs().max().item(),
    "hidden_error": (hidden - expected["hidden"])[valid].abs().max().item(),
    "logits_scale": expected["logits"][valid].abs().max().item(),
    "again_is_equal": torch.equal(again(inputs, attention_mask=mask).logits, logits),
    "fills": [fill["token_str"] for fill in by_folder(text)],
    "scores": [fill["score"] for fill in by_folder(text)],
    "encoded": tokenizer(text)["input_ids"],
    "mask_token_id": tokenizer.mask_token_id,
    "num_labels": models["AutoModelForSequenceClassification"](inputs).logits.shape[-1],
}
Path(output).write_text(json.dumps(report))
