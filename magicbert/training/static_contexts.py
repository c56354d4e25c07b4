"""Operators' contexts at fixed addresses, for recorded code that can read nowhere else."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

# A form stands for as many recordings as there are operators. Beyond the limit nothing is recorded.
MOST_FORMS = 8


class StaticContext:
    """One form's tensors, filled anew for every batch of that form.

    Attributes:
        form: what its batches have in common.
        value: the context that recorded code reads.
        epoch: number of batches that it has been filled from.
    """

    def __init__(self, form: Hashable, context: Any) -> None:
        self.form = form
        self.value = cloned(context)
        self.epoch = 0

    def fill(self, context: Any) -> None:
        """Takes over a batch's values; recorded code that runs from now on reads them."""
        mine, its = tensors_of(self.value), tensors_of(context)
        for name, tensor in mine.items():
            tensor.copy_(its[name])
        for cache in caches_of(self.value).values():
            cache.clear()
        self.epoch += 1


class StaticContexts:
    """The static context of whatever batch is being run."""

    def __init__(self) -> None:
        self.by_form: dict[Hashable, StaticContext] = {}
        self._source: Any = None
        self._current: StaticContext | None = None

    def of(self, context: Any) -> StaticContext | None:
        """Returns the filled static context of a batch; ``None`` = there are forms enough.

        Args:
            context: the batch's own, the same object for all operators of one forward.
        """
        if self._current is not None and context is self._source:
            return self._current
        form = form_of(context)
        static = self.by_form.get(form)
        if static is None:
            if len(self.by_form) == MOST_FORMS:
                return None
            static = self.by_form[form] = StaticContext(form, context)
        static.fill(context)
        self._source, self._current = context, static
        return static


def form_of(context: Any) -> Hashable:
    """Returns what recorded code depends on beside the values in a context's tensors.

    Raises:
        TypeError: the context is neither ``None`` nor a dataclass.
    """
    return tuple(
        (field.name, described(getattr(context, field.name))) for field in compared_fields(context)
    )


def described(value: Any) -> Hashable:
    """Returns shape, type and device of a tensor; anything else stands for itself."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    return value  # type: ignore[no-any-return]


def cloned(context: Any) -> Any:
    """Returns a context with tensors of its own and empty caches."""
    if context is None:
        return None
    empty = {name: type(cache)() for name, cache in caches_of(context).items()}
    return replace(context, **{n: t.clone() for n, t in tensors_of(context).items()}, **empty)


def caches_of(context: Any) -> dict[str, Any]:
    """Returns the containers that a context keeps what it computed in, by field."""
    if context is None:
        return {}
    return {
        field.name: getattr(context, field.name)
        for field in fields(context)
        if not field.compare and field.default_factory is not MISSING
    }


def tensors_of(context: Any) -> dict[str, Tensor]:
    """Returns a context's tensors by field."""
    values = {field.name: getattr(context, field.name) for field in compared_fields(context)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def compared_fields(context: Any) -> list[Field[Any]]:
    """Returns the fields that make a context what it is; those that are not compared are caches."""
    if context is None:
        return []
    if not is_dataclass(context):
        raise TypeError(f"an operator's context must be a dataclass, not {type(context).__name__}")
    return [field for field in fields(context) if field.compare]
