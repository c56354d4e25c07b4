"""YAML plus dotted overrides -> a validated configuration, or every problem at once.

YAML is read strictly: duplicate keys are refused, ``1e-4`` is a number, and an unknown key gets
a suggestion. No value is converted silently.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from magicbert.errors import ConfigError

Config = TypeVar("Config")


class StrictLoader(yaml.SafeLoader):
    """``yaml.safe_load`` that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping, or raises ``ConstructorError`` on a key given twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a plain name", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(kind: type[Config], file: str | None, overrides: Mapping[str, str]) -> Config:
    """Reads, overrides and validates one configuration.

    Args:
        kind: root dataclass of the verb.
        file: YAML file, or ``None`` for the defaults alone.
        overrides: ``section.field`` to its text, as given on the command line (read as YAML).

    Raises:
        ConfigError: with every problem found, each at its dotted path.
    """
    source = file or "command line"
    tree = read_yaml(Path(file)) if file else {}
    problems: list[str] = []
    for path, text in overrides.items():
        problems.extend(set_dotted(tree, path, text))
    config = build(kind, tree, "", problems)
    if not problems:
        problems.extend(validation_problems(config))
    if problems:
        raise ConfigError(source, problems)
    return typing.cast(Config, config)


def read_yaml(file: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file; raises `ConfigError` naming file, line and column."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(file), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(file), [f"is not UTF-8 (byte {error.start})"]) from error
    try:
        tree = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(str(file), [str(error)]) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(str(file), [f"must hold sections, got {type(tree).__name__}"])
    return tree


def parse_yaml(text: str) -> Any:
    """Parses one YAML text; every failure is a ``ValueError`` with a one-line message."""
    try:
        # StrictLoader derives from SafeLoader: plain data only, no object is ever constructed.
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ValueError(f"{where}{what}".replace("\n", " ")) from error


def set_dotted(tree: dict[str, Any], path: str, text: str) -> Iterator[str]:
    """Sets ``a.b`` in the tree to the YAML value of ``text``; yields what went wrong."""
    try:
        value = parse_yaml(text)
    except ValueError as error:
        yield f"{path}: {error}"
        return
    *parents, leaf = path.split(".")
    node = tree
    for name in parents:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            yield f"{path}: {name} is a value, not a section"
            return
        node = child
    node[leaf] = value


def build(kind: type, tree: Any, prefix: str, problems: list[str]) -> Any:
    """Builds one dataclass from a mapping; collects problems and goes on."""
    if not isinstance(tree, dict):
        problems.append(f"{prefix or 'top level'}: must be a section, got {describe(tree)}")
        return kind()
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in tree.items():
        path = f"{prefix}.{name}" if prefix else name
        if name not in fields:
            problems.append(f"{path}: unknown option{suggestion(name, fields)}")
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = build(typing.cast(type, hints[name]), value, path, problems)
        else:
            try:
                values[name] = convert(hints[name], value)
            except ValueError as error:
                problems.append(f"{path}: {error}")
    return kind(**values)


def convert(hint: Any, value: Any) -> Any:
    """Returns ``value`` as the field's type; raises ``ValueError`` with expected and given."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if type(value) in {type(choice) for choice in choices} and value in choices:
            return value
        listing = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"must be one of {listing}, got {describe(value)}")
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"must be a list, got {describe(value)}")
        return tuple(convert(typing.get_args(hint)[0], item) for item in value)
    if origin in (typing.Union, types.UnionType):
        raise TypeError(f"unsupported field type {hint}")
    return convert_scalar(hint, value)


def convert_scalar(hint: type, value: Any) -> Any:
    """Converts one scalar without guessing: only int -> float and ``1e-4`` are widened."""
    if hint is float:
        number = to_float(value)
        if number is None or not math.isfinite(number):
            raise ValueError(f"must be a finite number, got {describe(value)}")
        return number
    if hint is int and isinstance(value, bool) or not isinstance(value, hint):
        names = {int: "a whole number", bool: "true or false", str: "text"}
        raise ValueError(f"must be {names[hint]}, got {describe(value)}")
    return value


def to_float(value: Any) -> float | None:
    """Returns a number, reading YAML 1.1's text ``1e-4`` as one; ``None`` if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def describe(value: Any) -> str:
    """Names a value and its type for a message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Returns ', did you mean ...?' or the list of what exists."""
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def validation_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """Yields every section's own problems, then those between sections."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            path = f"{prefix}{field.name}."
            yield from validation_problems(value, path)
    if hasattr(config, "validate"):
        yield from (f"{prefix}{problem}" for problem in config.validate())


def to_tree(config: Any) -> dict[str, Any]:
    """Returns the resolved configuration as plain data, tuples as lists."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def to_yaml(config: Any) -> str:
    """Returns the resolved configuration as YAML that reads back to an equal value."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def from_tree(kind: type[Config], tree: Mapping[str, Any], source: str) -> Config:
    """Builds and validates a configuration from plain data, such as a run's ``config.yaml``."""
    problems: list[str] = []
    config = build(kind, dict(tree), "", problems)
    if not problems:
        problems.extend(validation_problems(config))
    if problems:
        raise ConfigError(source, problems)
    return typing.cast(Config, config)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
