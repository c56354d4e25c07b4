"""The forms in which each model is timed: torch, ONNX, ONNX with int8 weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from magicbert.comparison.latency import Batch, Form, Timing, measure_latency, random_batches
from magicbert.export.heads import head_of
from magicbert.export.onnx_graph import graph_inputs, write_graph
from magicbert.export.onnx_session import OnnxModel, write_int8

FORMS = ("torch", "onnx", "int8")
NUM_LABELS = 2
HEAD = head_of("", ["ForSequenceClassification"])


@dataclass
class Lineup:
    """All forms of all models that are timed together.

    Attributes:
        timing: how.
        forms: by ``(model, form)``.
        batches: their inputs.
        missing: why a form cannot be timed.
    """

    timing: Timing
    forms: dict[tuple[str, str], Form] = field(default_factory=dict)
    batches: dict[tuple[str, str], Sequence[Batch]] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, name: str, form: str, call: Form, batches: Sequence[Batch]) -> None:
        """Adds one form of a model."""
        self.forms[name, form] = call
        self.batches[name, form] = batches

    def miss(self, name: str, forms: Sequence[str], reason: str) -> None:
        """Notes why forms of a model are not there."""
        self.missing.update({(name, form): reason for form in forms})

    def add_model(self, name: str, model: nn.Module, vocab_size: int, scratch: Path | None) -> None:
        """Adds the forms of a classifier.

        Args:
            name: of the model.
            model: in evaluation mode.
            vocab_size: its number of tokens.
            scratch: folder for the graphs; ``None`` = torch alone.
        """
        inputs = graph_inputs(("input_ids", "attention_mask"), 0)
        batches = random_batches(vocab_size, inputs, self.timing)
        self.add(name, "torch", torch_form(model), batches)
        if scratch is None:
            self.miss(name, FORMS[1:], "ONNX was not asked for (compare.onnx)")
            return
        graph, int8 = scratch / "model.onnx", scratch / "model_int8.onnx"
        try:
            write_graph(model, HEAD, inputs, graph)
            write_int8(graph, int8)
            for form, file in zip(FORMS[1:], (graph, int8), strict=True):
                session = OnnxModel(file, self.timing.threads)
                session(batches[0])
                self.add(name, form, session, batches)
        except Exception as error:  # the exporter raises many kinds: a reason in the table
            reason = " ".join(str(error).split())[:200]
            self.miss(name, FORMS[1:], f"{type(error).__name__}: {reason}")

    def measure(self) -> dict[tuple[str, str], Any]:
        """Returns the milliseconds of every form; all of them take turns with each other."""
        names = {"/".join(key): key for key in self.forms}
        measured = measure_latency(
            {name: self.forms[key] for name, key in names.items()},
            {name: self.batches[key] for name, key in names.items()},
            self.timing,
        )
        return {names[name]: row for name, row in measured.items()}


def torch_form(model: nn.Module) -> Form:
    """Returns the call of a torch model."""

    def call(batch: Mapping[str, Tensor]) -> Any:
        return model(**batch, return_dict=False)

    return call


def load_timed(source: str, *, trust_remote_code: bool = False) -> nn.Module:
    """Loads a model with a new classification head, which every encoder can have."""
    torch.manual_seed(0)
    model: nn.Module = transformers.AutoModelForSequenceClassification.from_pretrained(
        source,
        trust_remote_code=trust_remote_code,
        num_labels=NUM_LABELS,
        ignore_mismatched_sizes=True,
        use_safetensors=True,
        dtype=torch.float32,
    )
    return model.eval()
