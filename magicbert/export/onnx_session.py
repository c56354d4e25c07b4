"""Runs an ONNX graph as torch code runs a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magicbert.export.onnx_packages import quantization, runtime

# Of the graphs here the matrix products and the token table hold nearly all weights.
QUANTIZED = ("MatMul", "Gemm", "Gather")


class OnnxModel:
    """A graph in ONNX Runtime on the CPU.

    Args:
        file: the graph.
        threads: of one call; 0 = all cores.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        options = runtime().SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait by running would be timed as work of whoever's turn it is.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session: Any = runtime().InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.axes: dict[str, tuple[str | int, ...]] = {
            value.name: tuple(value.shape)
            for value in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        self._inputs = tuple(value.name for value in self._session.get_inputs())

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Returns the outputs in the head's order; fields that the graph lacks are not read."""
        feed = {name: batch[name].numpy() for name in self._inputs}
        return tuple(torch.from_numpy(value) for value in self._session.run(None, feed))


def write_int8(graph: Path, file: Path) -> None:
    """Writes a graph whose weights are int8 per channel; activations are quantised as they come."""
    tools = quantization()
    # The package advises on the root logger to simplify graphs first, which torch has done.
    logging.disable(logging.WARNING)
    try:
        tools.quantize_dynamic(
            graph,
            file,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            weight_type=tools.QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor], mask: Tensor) -> float:
    """Returns the largest absolute difference of outputs, padded positions left out.

    Args:
        ours: outputs with the axes ``[B, ...]`` or ``[B, S, ...]``.
        theirs: the same of another form of the model.
        mask: ``[B, S]``, 0 = padding.
    """
    worst = 0.0
    for one, other in zip(ours, theirs, strict=True):
        gap = (one - other).abs()
        if one.shape[:2] == mask.shape:
            gap = gap[mask > 0]
        worst = max(worst, float(gap.max()) if gap.numel() else 0.0)
    return worst
