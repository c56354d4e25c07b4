"""From a torch model to an ONNX graph with free numbers of rows and positions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.export.heads import Head

# Sizes that no dimension of a model is fixed to while its graph is traced.
EXAMPLE_ROWS, EXAMPLE_LENGTH = 2, 9
OPSET = 20  # the first with a Gelu of its own
# Under 2 GiB the weights fit into the one file that such a graph may be.
MAX_FILE_BYTES = 2**31 - 2**24


class GraphModel(nn.Module):
    """A model of transformers with positional inputs, which a graph needs.

    Args:
        model: the model.
        inputs: names of its inputs, in order.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns the model's outputs in order."""
        named = dict(zip(self.inputs, tensors, strict=True))
        output: tuple[Tensor, ...] = self.model(**named, return_dict=False)
        return output


def graph_inputs(model_inputs: Sequence[str], num_types: int) -> tuple[str, ...]:
    """Returns the inputs of a graph.

    Args:
        model_inputs: what the tokenizer gives.
        num_types: kinds of segments that the model tells apart; from 2 on they are an input.
    """
    has_types = num_types > 1 and "token_type_ids" in model_inputs
    return ("input_ids", "attention_mask", *(["token_type_ids"] if has_types else []))


def write_graph(model: nn.Module, head: Head, inputs: Sequence[str], file: Path) -> None:
    """Traces a model in evaluation mode and writes the graph with its weights in one file."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    example = example_batch(inputs)
    with quiet():
        program = torch.onnx.export(
            GraphModel(model, inputs).eval(),
            tuple(example.values()),
            input_names=list(inputs),
            output_names=list(head.output_names),
            dynamic_shapes=(({0: batch, 1: length},) * len(inputs),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    file.write_bytes(without_origin(program.model_proto).SerializeToString())


def without_origin(proto: Any) -> Any:
    """Takes out of a graph what tracing left in it, in place.

    Notes name files of the machine that traced; the shapes of values in between are not true any
    more where the exporter has put a node in the place of others, and every reader infers them.
    """
    graph = proto.graph
    del graph.value_info[:], graph.metadata_props[:], proto.metadata_props[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    return proto


def num_weight_bytes(model: nn.Module) -> int:
    """Returns the bytes of a model's weights."""
    return sum(weight.nbytes for weight in model.parameters())


def example_batch(inputs: Sequence[str]) -> Mapping[str, Tensor]:
    """Returns what a model is traced with; the last row ends in padding."""
    values = torch.ones(EXAMPLE_ROWS, EXAMPLE_LENGTH, dtype=torch.int64)
    mask = values.clone()
    mask[-1, EXAMPLE_LENGTH // 2 :] = 0
    types = torch.zeros_like(values)
    example = {"input_ids": values, "attention_mask": mask, "token_type_ids": types}
    return {name: example[name] for name in inputs}


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps out of the log what the exporter says of packages and of its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
