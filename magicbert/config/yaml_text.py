"""YAML text to plain data and back, by the rules of YAML 1.2.

PyYAML follows YAML 1.1, where ``no`` is false, ``1:30`` is 90, ``010`` is 8 and ``1e-4`` is text.
Here only ``true``/``false`` are truth values, numbers are decimal, ``1e-4`` is a number, and a key
that is given twice is refused. So are tags, anchors and aliases (a few lines of aliases can stand
for gigabytes), and more depth or text than any configuration has.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 16

# In this order: the first pattern that matches names the type of a plain scalar.
PLAIN_SCALARS = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", tuple("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        tuple("-+0123456789."),
    ),
)  # fmt: skip


class StrictLoader(yaml.SafeLoader):
    """``yaml.safe_load`` with the scalars of YAML 1.2 that reads plain trees only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Reads one node, or raises ``ComposerError`` on what only hostile files hold."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        refused = ""
        if getattr(event, "anchor", None) is not None:
            refused = "anchors and aliases are not read: write the value out"
        elif getattr(event, "tag", None) is not None:
            refused = f"tags are not read: {event.tag}"
        elif self.depth >= MAX_DEPTH:
            refused = f"nested deeper than {MAX_DEPTH} levels"
        if refused:
            raise yaml.composer.ComposerError(None, None, refused, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping, or raises ``ConstructorError`` on a key given twice."""
        seen: set[str] = set()
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


class StrictDumper(yaml.SafeDumper):
    """``yaml.safe_dump`` that quotes what `StrictLoader` would not read as text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Says that everything is written out."""
        return True


for _tag, _pattern, _first in PLAIN_SCALARS:
    for _kind in (StrictLoader, StrictDumper):
        _kind.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
        )


def parse_yaml(text: str) -> Any:
    """Parses one YAML text; every failure is a ``ValueError`` with a one-line message."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters: not a configuration")
    try:
        # StrictLoader derives from SafeLoader: plain data only, no object is ever constructed.
        return yaml.load(text, Loader=StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ValueError(f"{where}{what}".replace("\n", " ")) from error


def dump_yaml(tree: Any) -> str:
    """Returns YAML that `parse_yaml` reads back to equal data."""
    # Long lines stay whole: a folded string is hard to read and to search for.
    return yaml.dump(tree, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=4096)
