"""Shows that fine-tuned models answer questions where magicbert was never installed.

    python benchmarks/clean_environment.py --trust_remote_code OUTPUT.json runs/RUN/finetune-L ...

makes a virtual environment with torch, transformers and onnxruntime alone. There, the kept SQuAD
model of each fine-tuning is asked the first dev questions through `pipeline`, and its ONNX graph
(``runs/RUN/onnx-LABEL``) is run in ONNX Runtime. Answers are compared with those that the
fine-tuning stage predicted. Needs $MAGICBERT_DATA and an index of packages.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from magicbert.config.reading import from_tree, read_yaml
from magicbert.config.roots import FinetuneConfig
from magicbert.errors import EXIT_USER_ERROR, UserError
from magicbert.finetune.squad.squad_file import read_squad_file
from magicbert.finetune.squad.task import SQUAD
from magicbert.records import write_record
from magicbert.trail import describe_environment

SCHEMA = "magicbert/clean-environment/1"
PROBE = Path(__file__).with_name("clean_probe.py")
SCRIPT = "benchmarks/clean_environment.py"
TASK = "squad"
# The oldest transformers that is supported: the models were made with a newer one.
PACKAGES = ("torch==2.13.0", "transformers==5.17.0", "onnxruntime")


def main(
    output: Path, stages: Sequence[Path], packages: Sequence[str], number: int, *, trust: bool
) -> None:
    """Makes the environment, asks there, and writes the record."""
    if not trust:
        raise UserError("the models bring code of their own: give --trust_remote_code to run it")
    questions = first_questions(number)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = {
            "questions": [row for _, row in questions],
            "windows": windows_of(stages[0]),
            "trust_remote_code": trust,
            "models": [model_of(stage) for stage in stages],
        }
        seen = asked_in(folder, environment_in(folder, packages), task)
    rows = [
        compared(model, stage, [key for key, _ in questions], task["questions"])
        for model, stage in zip(seen["models"], stages, strict=True)
    ]
    names = " ".join(map(str, stages))
    write_record(output, SCHEMA, {
        "command": f"python {SCRIPT} --trust_remote_code {output} {names}",
        "commit": describe_environment()["commit"],
        "python": seen["python"],
        "versions": seen["versions"],
        "num_questions": number,
        "rows": rows,
    })  # fmt: skip


def first_questions(number: int) -> list[tuple[str, dict[str, str]]]:
    """Returns the ids and texts of the first dev questions of SQuAD 1.1."""
    data = os.environ.get("MAGICBERT_DATA")
    if not data:
        raise UserError("MAGICBERT_DATA: not set; it names the folder that holds squad/")
    folder = Path(data) / "squad"
    file = next((f for f in sorted(folder.glob("dev-v1.1.json*"))), folder / "dev-v1.1.json")
    rows = read_squad_file(file, SQUAD).rows[:number]
    return [(row.id, {"question": row.text, "context": row.context}) for row in rows]


def windows_of(stage: Path) -> dict[str, int]:
    """Returns how the fine-tuning cut contexts, in the words of the pipeline."""
    squad = from_tree(FinetuneConfig, read_yaml(stage / "config.yaml"), str(stage)).squad
    return {
        "max_seq_len": squad.max_length,
        "doc_stride": squad.overlap,
        "max_question_len": squad.max_question_tokens,
        "max_answer_len": squad.max_answer_tokens,
    }


def model_of(stage: Path) -> dict[str, str]:
    """Returns the folder of a fine-tuning's kept model and its graph."""
    label = stage.name.removeprefix("finetune")
    folder, graph = stage / "models" / TASK, stage.parent / f"onnx{label}" / "model.onnx"
    for needed in (folder, graph):
        if not needed.exists():
            raise UserError(f"{needed}: is missing; set finetune.keep_model and export --onnx")
    return {"folder": str(folder.resolve()), "graph": str(graph.resolve())}


def environment_in(folder: Path, packages: Sequence[str]) -> Path:
    """Makes a virtual environment with some packages; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "bare")], check=True)
    python = folder / "bare" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def asked_in(folder: Path, python: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Runs the probe in the bare environment, with nothing of this one's."""
    (folder / "task.json").write_text(json.dumps(task))
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    homes = {"HOME": str(folder), "HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    arguments = (str(folder / "task.json"), str(folder / "seen.json"))
    subprocess.run(
        [str(python), "-I", str(PROBE), *arguments], cwd=folder, env=kept | homes, check=True
    )
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    return seen


def compared(
    model: dict[str, Any], stage: Path, keys: list[str], rows: list[dict[str, str]]
) -> dict[str, Any]:
    """Returns how many answers are those of the stage, with one for the eye."""
    file = stage / "predictions" / TASK / "predictions.json"
    predicted = json.loads(file.read_text(encoding="utf-8"))
    pairs = zip(keys, model["answers"], strict=True)
    return {
        "model": f"{stage}/models/{TASK}",
        "class": model["class"],
        "answers_as_predicted": sum(predicted[key] == answer for key, answer in pairs),
        "question": rows[0]["question"],
        "answer": model["answers"][0],
        "graph_difference": model["graph_difference"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("stages", type=Path, nargs="+", help="such as runs/NAME/finetune-LABEL")
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="what is installed there")
    parser.add_argument("--questions", type=int, default=50, help="how many are asked")
    parser.add_argument("--trust_remote_code", action="store_true",
                        help="run the code that comes with the models")  # fmt: skip
    given = parser.parse_args()
    try:
        main(
            given.output, given.stages, given.packages, given.questions,
            trust=given.trust_remote_code,
        )  # fmt: skip
    except UserError as error:
        parser.exit(EXIT_USER_ERROR, f"{error}\n")
