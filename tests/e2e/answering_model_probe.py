"""Run by a bare interpreter: asks a fine-tuned folder through transformers' `pipeline`.

Usage: python -I -S answering_model_probe.py FOLDER SITE_PACKAGES QUESTIONS OUTPUT
"""

from __future__ import annotations

import importlib.abc
import json
import sys
from pathlib import Path


class Refuse(importlib.abc.MetaPathFinder):
    """Makes magicbert unimportable, should it be installed as a plain package."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.split(".")[0] in ("magicbert", "magicbert_kernels"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


folder, site_packages, questions, output = sys.argv[1:]
sys.path.append(site_packages)
sys.meta_path.insert(0, Refuse())

from transformers import AutoModelForQuestionAnswering, pipeline  # noqa: E402

rows = json.loads(Path(questions).read_text())
answer = pipeline("question-answering", model=folder, trust_remote_code=True)
options = {"max_seq_len": 48, "doc_stride": 12, "max_question_len": 16, "max_answer_len": 6}
found = answer(rows, **options)
first = rows[0]
several = answer(**first, **options, top_k=3, handle_impossible_answer=False)
try:
    answer(question="", context="x")
    refusal = ""
except ValueError as error:
    refusal = str(error)
model = AutoModelForQuestionAnswering.from_pretrained(folder, trust_remote_code=True)
report = {
    "answers": found,
    "spelled": [
        row["context"][one["start"] : one["end"]] for row, one in zip(rows, found, strict=True)
    ],
    "several": several,
    "refusal": refusal,
    "class": type(model).__name__,
}
Path(output).write_text(json.dumps(report))
