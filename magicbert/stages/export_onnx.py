"""``magicbert export --onnx``: a model as ONNX graphs, checked, scored and timed beside torch."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magicbert.bench.machine import describe_machine, package_versions
from magicbert.comparison.dev_scores import DevRows, Form
from magicbert.comparison.latency import Timing, measure_latency, random_batches
from magicbert.comparison.loading import Runnable, load_runnable
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import OnnxSection
from magicbert.errors import UserError
from magicbert.export.onnx_folder import GRAPH, INT8_GRAPH, forms_table, write_onnx_folder
from magicbert.export.onnx_graph import MAX_FILE_BYTES, num_weight_bytes, write_graph
from magicbert.export.onnx_packages import require_onnx
from magicbert.export.onnx_parity import check_axes, check_parity, probes
from magicbert.export.onnx_session import OnnxModel, largest_difference, write_int8
from magicbert.run_lock import alone_in
from magicbert.stages.export_dev_rows import find_dev_rows
from magicbert.trail import describe_environment, stage_folder

LOGGER = logging.getLogger("magicbert")
NO_ROWS = "no dev rows are known for this model: name its task with onnx.task"


def run(config: ExportConfig) -> None:
    """Converts the model and writes the folder ``onnx`` beside the run's ``export``.

    Raises:
        UserError: a package is missing, the model cannot be read, or its graph is not right.
    """
    require_onnx()
    own = stage_folder(config.run, "export")
    name = config.onnx.model or own.name
    loaded = load_runnable(
        config.onnx.model or str(own),
        name=name,
        trust_remote_code=config.onnx.trust_remote_code,
    )
    if num_weight_bytes(loaded.model) > MAX_FILE_BYTES:
        raise UserError(f"{name}: its weights do not fit into the 2 GiB of one ONNX file")
    folder = stage_folder(config.run, "onnx")
    dev_rows = find_dev_rows(config, loaded)
    with alone_in(folder):
        record = write_onnx_folder(
            folder,
            loaded.folder,
            lambda aside: fill(aside, loaded, dev_rows, config.onnx),
            usage(loaded),
        )
    LOGGER.info("%s", forms_table(record))
    LOGGER.info("exported %s to %s", name, folder)


def fill(
    folder: Path, loaded: Runnable, dev_rows: DevRows | None, options: OnnxSection
) -> dict[str, Any]:
    """Writes the graphs and returns their record."""
    name = loaded.start.name
    LOGGER.info("tracing %s", name)
    write_graph(loaded.model, loaded.head, loaded.inputs, folder / GRAPH)
    graph = OnnxModel(folder / GRAPH, options.threads)
    check_axes(name, graph, loaded.inputs)
    rows = list(probes(loaded.start.vocab_size, loaded.longest, loaded.inputs))
    worst = check_parity(name, loaded.model, graph, rows, options.tolerance)
    forms: dict[str, Form] = {"torch": torch_form(loaded), "onnx": graph}
    if options.int8:
        write_int8(folder / GRAPH, folder / INT8_GRAPH)
        forms["int8"] = OnnxModel(folder / INT8_GRAPH, options.threads)
    timing = Timing(
        options.rows, min(options.length, loaded.longest), options.rounds, threads=options.threads
    )
    times = measure_latency(
        forms,
        dict.fromkeys(forms, random_batches(loaded.start.vocab_size, loaded.inputs, timing)),
        timing,
    )
    judged = judge(forms, dev_rows, rows)
    sizes = {
        "torch": num_weight_bytes(loaded.model),
        **{form: (folder / file).stat().st_size for form, file in file_of(forms).items()},
    }
    return {
        "model": name,
        "model_identity": loaded.start.identity,
        "architecture": loaded.start.architecture,
        "class": type(loaded.model).__name__,
        "inputs": list(loaded.inputs),
        "outputs": list(loaded.head.output_names),
        "parity": {
            "largest_difference": worst,
            "tolerance": options.tolerance,
            "rows": sum(len(batch["input_ids"]) for batch in rows),
        },
        "score": scored_on(dev_rows),
        "timing": dataclasses.asdict(timing),
        "forms": {
            form: {"bytes": sizes[form], "milliseconds": times[form], **judged[form]}
            for form in forms
        },
        "machine": describe_machine(),
        "versions": package_versions(),
        "commit": describe_environment()["commit"],
    }


def scored_on(dev_rows: DevRows | None) -> dict[str, Any]:
    """Returns what the forms were scored on, or why they were not."""
    if dev_rows is None:
        return {"metric": "", "beside": [], "rows": 0, "source": "", "reason": NO_ROWS}
    return {
        "metric": dev_rows.metric,
        "beside": list(dev_rows.beside),
        "rows": dev_rows.num_rows,
        "source": dev_rows.source,
        "reason": "",
    }


def file_of(forms: Mapping[str, Form]) -> dict[str, str]:
    """Returns the file of each form that has one."""
    files = {"onnx": GRAPH, "int8": INT8_GRAPH}
    return {form: file for form, file in files.items() if form in forms}


def torch_form(loaded: Runnable) -> Form:
    """Returns the torch model as a form: a batch in, outputs in order out."""

    def call(batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        output: tuple[Tensor, ...] = loaded.model(**batch, return_dict=False)
        return output

    return call


def judge(
    forms: Mapping[str, Form], dev_rows: DevRows | None, probe_rows: Sequence[Mapping[str, Tensor]]
) -> dict[str, dict[str, Any]]:
    """Returns, per form, its scores and the largest difference of its logits to torch's.

    Both are of the dev rows where there are any; else the difference is of rows of random tokens.
    """
    batches = list(dev_rows.batches()) if dev_rows else list(probe_rows)
    with torch.inference_mode():
        outputs = {name: [form(batch) for batch in batches] for name, form in forms.items()}
    judged: dict[str, dict[str, Any]] = {}
    for name, given in outputs.items():
        gaps = [
            largest_difference(one, other, batch["attention_mask"])
            for one, other, batch in zip(outputs["torch"], given, batches, strict=True)
        ]
        metrics = dev_rows.scores(given) if dev_rows else {}
        judged[name] = {
            "largest_difference": max(gaps),
            "score": metrics[dev_rows.metric] if dev_rows else None,
            "metrics": metrics,
        }
    return judged


def usage(loaded: Runnable) -> str:
    """Returns Python code that runs the graph."""
    return (
        "import onnxruntime\n"
        "from transformers import AutoTokenizer\n\n"
        'folder = "path/to/this/folder"\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)\n"
        f'session = onnxruntime.InferenceSession(f"{{folder}}/{GRAPH}")\n'
        'fields = tokenizer(["some text", "and a longer one"], padding=True, return_tensors="np")\n'
        f"inputs = {{name: fields[name] for name in {list(loaded.inputs)}}}\n"
        f"{', '.join(loaded.head.output_names)}, = session.run(None, inputs)\n"
    )
