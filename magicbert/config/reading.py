"""YAML plus dotted overrides -> a validated configuration, or every problem at once.

YAML is read strictly (see `magicbert.config.yaml_text`), and an unknown key gets a suggestion. No
value is converted silently; only a whole number is widened where a number is expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from magicbert.config.fields import Range, listed_section
from magicbert.config.yaml_text import MAX_CHARACTERS, dump_yaml, parse_yaml
from magicbert.errors import ConfigError
from magicbert.redaction import redact, secret_in

Config = TypeVar("Config")
MAX_TEXT = 4096  # the longest path that Linux knows
MAX_ITEMS = 10_000
# Line feeds, NUL, terminal codes and halves of surrogate pairs belong into no option.
NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def load_config(kind: type[Config], file: str | None, overrides: Mapping[str, str]) -> Config:
    """Reads, overrides and validates one configuration.

    Args:
        kind: root dataclass of the verb.
        file: YAML file, or ``None`` for the defaults alone.
        overrides: ``section.field`` to its text, as given on the command line: read as YAML, but
            an option that takes text takes it as it stands.

    Raises:
        ConfigError: with every problem found, each at its dotted path.
    """
    tree = read_yaml(Path(file)) if file else {}
    problems: list[str] = []
    for path, text in overrides.items():
        problems.extend(set_dotted(tree, path, text, is_text=option_type(kind, path) is str))
    return checked(kind, tree, file or "command line", problems)


def from_tree(kind: type[Config], tree: Mapping[str, Any], source: str) -> Config:
    """Builds and validates a configuration from plain data, such as a run's ``config.yaml``."""
    return checked(kind, dict(tree), source, [])


def checked(kind: type[Config], tree: Any, source: str, problems: list[str]) -> Config:
    """Builds and validates; raises `ConfigError` with these problems and all that are found."""
    doubtful: set[str] = set()
    config = build(kind, tree, "", problems, doubtful)
    # A field that could not be read holds its default: what follows from that is no finding.
    problems.extend(
        problem
        for problem in validation_problems(config)
        if doubtful.isdisjoint(re.findall(r"\w+", problem))
    )
    if problems:
        raise ConfigError(source, problems)
    return typing.cast(Config, config)


def read_yaml(file: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file; raises `ConfigError` naming file, line and column."""
    try:
        with file.open("rb") as stream:  # never all of it: it may be a device
            text = stream.read(4 * MAX_CHARACTERS + 1).decode("utf-8-sig")
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
        raise ConfigError(str(file), [f"must hold sections, got {describe(tree)}"])
    return tree


def hints_of(kind: Any) -> dict[str, Any]:
    """Returns the types of a section's fields; resolving them anew takes most of a read."""
    return _resolved_hints(kind)


@functools.cache
def _resolved_hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def option_type(kind: type, path: str) -> Any:
    """Returns the declared type of ``section.field``, or ``None`` if there is no such option."""
    hint: Any = kind
    for name in path.split("."):
        if not dataclasses.is_dataclass(hint):
            return None
        hint = hints_of(hint).get(name)
    return hint


def set_dotted(tree: dict[str, Any], path: str, text: str, *, is_text: bool) -> Iterator[str]:
    """Sets ``a.b`` in the tree to ``text`` or to its YAML value; yields what went wrong."""
    try:
        value = text if is_text else parse_yaml(text)
    except ValueError as error:
        yield f"{path}: {error}"
        return
    *parents, leaf = path.split(".")
    node = tree
    for name in parents:
        if node.get(name) is None:
            node[name] = {}
        if not isinstance(node[name], dict):
            yield f"{path}: {name} is a value, not a section"
            return
        node = node[name]
    node[leaf] = value


def build(kind: type, tree: Any, prefix: str, problems: list[str], doubtful: set[str]) -> Any:
    """Builds one dataclass from a mapping; collects problems and goes on.

    Args:
        kind: dataclass of the section.
        tree: its mapping; ``None``, a section with nothing in it, means the defaults.
        prefix: dotted path of the section.
        problems: receives one line per problem.
        doubtful: receives the names of fields that keep their default because of a problem.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if tree is not None and not isinstance(tree, dict):
        problems.append(f"{prefix or 'top level'}: must be a section, got {describe(tree)}")
        doubtful.update(fields)
        return kind()
    hints = hints_of(kind)
    given: dict[str, Any] = tree or {}
    values = {}
    for name, value in given.items():
        path = f"{prefix}.{name}" if prefix else name
        if name not in fields:
            problems.append(f"{path}: unknown option{suggestion(name, fields)}")
            doubtful.update(meant_fields(name, hints, given))
        elif dataclasses.is_dataclass(hints[name]):
            section = typing.cast(type, hints[name])
            values[name] = build(section, value, path, problems, doubtful)
        elif (item := listed_section(hints[name])) is not None:
            values[name] = build_list(item, value, path, problems, doubtful)
        else:
            try:
                values[name] = convert(hints[name], value)
            except ValueError as error:
                problems.append(f"{path}: {error}")
                doubtful.add(name)
    return kind(**values)


def build_list(
    kind: type, items: Any, path: str, problems: list[str], doubtful: set[str]
) -> tuple[Any, ...]:
    """Builds a list of sections, each as `build` does."""
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        limit = f" of at most {MAX_ITEMS}" if isinstance(items, list) else ""
        problems.append(f"{path}: must be a list of sections{limit}, got {describe(items)}")
        doubtful.add(path.rpartition(".")[2])
        return ()
    return tuple(
        build(kind, item, f"{path}[{number}]", problems, doubtful)
        for number, item in enumerate(items)
    )


def meant_fields(name: str, hints: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Returns the fields that a misspelled name was to set, as far as can be told."""
    close = [field for field in difflib.get_close_matches(name, hints, n=1) if field not in tree]
    if close and dataclasses.is_dataclass(hints[close[0]]):
        return [field.name for field in dataclasses.fields(hints[close[0]])]
    return close


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
            remedy = f"; write [{value}]" if isinstance(value, (str, int, float)) else ""
            raise ValueError(f"must be a list, got {describe(value)}{remedy}")
        if len(value) > MAX_ITEMS:
            raise ValueError(f"must have at most {MAX_ITEMS} items, got {len(value)}")
        return tuple(convert(typing.get_args(hint)[0], item) for item in value)
    if origin in (typing.Union, types.UnionType):
        raise TypeError(f"unsupported field type {hint}")
    return convert_scalar(hint, value)


def convert_scalar(hint: type, value: Any) -> Any:
    """Checks one scalar without guessing: only int -> float is widened."""
    if hint is float:
        number = to_float(value)
        if number is None or not math.isfinite(number):
            raise ValueError(f"must be a finite number, got {describe(value)}")
        return number
    if (hint is int and isinstance(value, bool)) or not isinstance(value, hint):
        names = {int: "a whole number", bool: "true or false", str: "text"}
        raise ValueError(f"must be {names[hint]}, got {describe(value)}")
    if isinstance(value, str):
        check_text(value)
    return value


def check_text(text: str) -> None:
    """Raises ``ValueError`` on text that is no name, path or sentence, or that holds a secret."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"must have at most {MAX_TEXT} characters, got {len(text)}")
    if NOT_TEXT.search(text):
        raise ValueError(f"must be text without control characters, got {describe(text)}")
    secret = secret_in(text)
    if secret is not None:
        raise ValueError(f"holds {secret}; leave it in the environment: runs keep what is here")


def to_float(value: Any) -> float | None:
    """Returns a number as float; ``None`` if it is none, or too large for one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def describe(value: Any) -> str:
    """Names a value and its type for a message."""
    if value is None:
        return "nothing"
    text = redact(repr(value))
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
        elif listed_section(hints_of(type(config))[field.name]):
            for number, item in enumerate(value):
                yield from validation_problems(item, f"{prefix}{field.name}[{number}].")
        elif "range" in field.metadata:
            yield from range_problems(f"{prefix}{field.name}", value, field.metadata["range"])
    if hasattr(config, "validate"):
        yield from (f"{prefix}{problem}" for problem in config.validate())


def range_problems(path: str, value: Any, allowed: Range) -> Iterator[str]:
    """Yields a problem for each number that is out of its range."""
    for number in value if isinstance(value, tuple) else (value,):
        if number not in allowed:
            yield f"{path}: must be in {allowed.text}, got {describe(number)}"


def to_tree(config: Any) -> dict[str, Any]:
    """Returns the resolved configuration as plain data, tuples as lists."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def to_yaml(config: Any) -> str:
    """Returns the resolved configuration as YAML that reads back to an equal value."""
    return dump_yaml(to_tree(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
