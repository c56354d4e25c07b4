"""Fields of JSON objects, checked as they are taken: a file may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from magicbert.errors import UserError

Kind = TypeVar("Kind")
MOST = 2**62


class FormatError(UserError):
    """A file that is not what it claims to be."""


def take(data: Any, name: str, kind: type[Kind]) -> Kind:
    """Returns one field of an object.

    Args:
        data: what should be a JSON object.
        name: the field.
        kind: ``str``, ``list`` or ``dict``; numbers have functions of their own.

    Raises:
        FormatError: there is no such field, or it is of another type.
    """
    if not isinstance(data, Mapping):
        raise FormatError(f"expected a JSON object with the field {name}, found {shown(data)}")
    if name not in data:
        raise FormatError(f"the field {name} is missing")
    value = data[name]
    if not isinstance(value, kind):
        raise FormatError(f"{name}: expected {kind.__name__}, found {shown(value)}")
    return value


def take_whole(data: Any, name: str, least: int = 0) -> int:
    """Returns a field that is a whole number of at least ``least``."""
    return whole(take(data, name, object), name, least)


def take_seconds(data: Any, name: str) -> float:
    """Returns a field that is a number of seconds."""
    value = take(data, name, object)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < MOST:
        raise FormatError(f"{name}: expected a number of seconds, found {shown(value)}")
    return float(value)


def whole(value: object, name: str, least: int = 0) -> int:
    """Returns a value that must be a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < MOST:
        raise FormatError(f"{name}: expected a whole number from {least} on, found {shown(value)}")
    return value


def text_or_none(data: Any, name: str) -> str | None:
    """Returns a field that is text or null."""
    value = take(data, name, object)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{name}: expected text or null, found {shown(value)}")
    return value


def shown(value: object) -> str:
    """Returns a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
