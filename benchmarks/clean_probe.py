"""Run by the bare environment of clean_environment.py: asks models, and runs their graphs.

Usage: python -I clean_probe.py TASK.json OUTPUT.json
"""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline

PACKAGES = ("torch", "transformers", "tokenizers", "onnxruntime")


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Returns what every model answered, and how far its graph is from it."""
    if importlib.util.find_spec("magicbert"):
        raise SystemExit("magicbert is installed here: nothing would be shown")
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": sys.version.split()[0],
        "models": [asked(model, task) for model in task["models"]],
    }


def asked(model: dict[str, str], task: dict[str, Any]) -> dict[str, Any]:
    """Returns the answers of one model, and the largest difference of its graph's logits."""
    trust: bool = task["trust_remote_code"]
    answer = pipeline("question-answering", model=model["folder"], trust_remote_code=trust)
    found = answer(task["questions"], **task["windows"])
    return {
        **model,
        "class": type(answer.model).__name__,
        "answers": [one["answer"] for one in found],
        "graph_difference": graph_difference(model, task["questions"][0], trust),
    }


@torch.no_grad()
def graph_difference(model: dict[str, str], row: dict[str, str], trust: bool) -> float:
    """Returns the largest difference of start and end logits between torch and ONNX Runtime."""
    folder, graph = model["folder"], model["graph"]
    net = AutoModelForQuestionAnswering.from_pretrained(folder, trust_remote_code=trust).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    inputs = tokenizer(
        row["question"], row["context"], truncation="only_second", max_length=128,
        return_tensors="pt",
    )  # fmt: skip
    output = net(**{name: inputs[name] for name in names})
    ours = session.run(None, {name: inputs[name].numpy() for name in names})
    theirs = (output.start_logits.numpy(), output.end_logits.numpy())
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    wanted, output = map(Path, sys.argv[1:])
    output.write_text(json.dumps(main(json.loads(wanted.read_text()))))
