"""Whether a graph gives torch's logits, on rows of several lengths, full and padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from magicbert.errors import UserError
from magicbert.export.onnx_graph import EXAMPLE_LENGTH
from magicbert.export.onnx_session import OnnxModel, largest_difference


def check_axes(name: str, graph: OnnxModel, inputs: Sequence[str]) -> None:
    """Raises `UserError` if tracing has fixed the number of rows or of positions."""
    for field in inputs:
        if graph.axes.get(field) != ("batch", "length"):
            raise UserError(
                f"{name}: its graph takes {field} as {list(graph.axes.get(field, ()))}, not with "
                "any number of rows and positions; nothing is written"
            )


def probes(vocab_size: int, longest: int, inputs: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yields batches of random tokens: one token, one row, several rows padded on either side."""
    generator = torch.Generator().manual_seed(0)
    for rows, length in ((1, 1), (1, EXAMPLE_LENGTH), (3, 2 * EXAMPLE_LENGTH), (2, longest)):
        length = min(length, longest)
        tokens = torch.randint(vocab_size, (rows, length), generator=generator)
        mask = torch.ones_like(tokens)
        if rows > 1:
            mask[0, length // 2 + 1 :] = 0
            mask[-1, : length // 3] = 0
        types = (torch.arange(length) > length // 2).long().expand_as(tokens)
        fields = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": types}
        yield {name: fields[name].contiguous() for name in inputs}


def check_parity(
    name: str,
    model: torch.nn.Module,
    graph: OnnxModel,
    batches: Sequence[Mapping[str, Tensor]],
    tolerance: float,
) -> float:
    """Returns the largest difference between the logits of both.

    Raises:
        UserError: it is above the tolerance, or not a number.
    """
    worst = 0.0
    with torch.inference_mode():
        for batch in batches:
            expected = model(**batch, return_dict=False)
            gap = largest_difference(expected, graph(batch), batch["attention_mask"])
            if not gap <= tolerance:
                raise UserError(
                    f"{name}: on rows {list(batch['input_ids'].shape)} ONNX Runtime's logits "
                    f"differ from torch's by {gap:.3g}, more than onnx.tolerance {tolerance:g}; "
                    "nothing is written"
                )
            worst = max(worst, gap)
    return worst
