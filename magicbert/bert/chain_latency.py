"""What a chain of blocks is made of, as calls that can be timed: operators, maps and ends.

Every part has a name, and a model is a list of names: `parts_of`. Beside its operators these are
``embeddings-W`` (ahead of a first block of width W), ``map-V-W`` (between two widths) and
``head-W`` (a classification head behind a last block of width W).
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from magicbert.bert.latency import TimedParts
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.operator_names import width_of
from magicbert.space import Architecture


def embeddings_part(width: int) -> str:
    """Names what stands ahead of a first block."""
    return f"embeddings-{width}"


def head_part(width: int) -> str:
    """Names what stands behind a last block."""
    return f"head-{width}"


def map_part(before: int, after: int) -> str:
    """Names what stands between two widths."""
    return f"map-{before}-{after}"


def parts_of(operators: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of all parts of a model; every operator states its width."""
    widths = [width_of(name, 0) for name in operators]
    borders = (map_part(*pair) for pair in itertools.pairwise(widths) if pair[0] != pair[1])
    return (embeddings_part(widths[0]), *operators, *borders, head_part(widths[-1]))


def whole_config(config: MagicBertConfig, operators: Sequence[str]) -> MagicBertConfig:
    """Returns the sizes of a model of some operators."""
    sized = copy.copy(config)
    sized.hidden_size = width_of(operators[-1], 0)
    return sized


def timed_chain(
    parts: TimedParts,
    widths: Sequence[int],
    operators: Sequence[str],
    models: Sequence[Architecture],
) -> dict[str, Callable[[], Any]]:
    """Returns a call for every part, and one for every whole model under ``whole`` and its name.

    Args:
        parts: batch, device, and sizes: an embedding size among them, if models have one.
        widths: that blocks may have.
        operators: full names.
        models: to be timed whole, with a classification head.
    """
    calls = parts.operators(operators)
    for width in widths:
        own = with_sizes(parts, width)
        calls[embeddings_part(width)] = own.embeddings()
        calls[head_part(width)] = own.head()
    for before, after in itertools.permutations(widths, 2):
        calls[map_part(before, after)] = parts.border(before, after)
    for model in models:
        own = dataclasses.replace(parts, config=whole_config(parts.config, model.operators))
        calls[f"whole {model}"] = own.whole(model)
    return calls


def with_sizes(parts: TimedParts, width: int) -> TimedParts:
    """Returns the parts of an encoder of one width."""
    sized = copy.copy(parts.config)
    sized.hidden_size = width
    return dataclasses.replace(parts, config=sized)
