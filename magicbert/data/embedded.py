"""The embedded corpus: English that comes with every Python interpreter.

It is read, never imported: the docstrings of the standard library's sources are parsed with
``ast``, and the language topics of ``pydoc_data`` are plain strings. One module or topic gives
several documents, one for each top-level object, so that a split by document is meaningful.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from magicbert.errors import UserError

# Tests, bundled third-party code and example programs; `pydoc_data` is read as topics.
SKIPPED_FOLDERS = {
    "test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__",
    "turtledemo", "_bundled", "pydoc_data",
}  # fmt: skip
MIN_DOCUMENT_LENGTH = 40  # characters; shorter ones say nothing
MIN_DESCRIPTION_WORDS = 5
RULER = re.compile(r"[\s*=\-~^_.+|#]*")
DOCTEST = re.compile(r"\s*(>>>|\.\.\.)")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class DescribedObject:
    """A class, function or method of the standard library and what it is for.

    Attributes:
        name: qualified name, such as ``json.decoder.JSONDecoder.decode``.
        signature: parameters in parentheses, or base classes of a class; may be ``()``.
        description: first paragraph of the docstring, on one line.
    """

    name: str
    signature: str
    description: str


@dataclass(frozen=True)
class EmbeddedText:
    """Everything that one reading of the sources gives."""

    documents: tuple[str, ...]
    objects: tuple[DescribedObject, ...]


def documents() -> Iterator[str]:
    """Yields the cleaned documents in a fixed order: modules by name, then topics by name."""
    yield from _read().documents


def described_objects() -> Iterator[DescribedObject]:
    """Yields every object with a description of five words or more, in a fixed order."""
    yield from _read().objects


def paragraphs(text: str) -> list[str]:
    """Returns the paragraphs of a docstring, each on one line, without doctests and rulers."""
    blocks: list[list[str]] = [[]]
    for line in text.expandtabs().splitlines():
        if DOCTEST.match(line):
            continue
        if RULER.fullmatch(line):
            blocks.append([])
        else:
            blocks[-1].append(" ".join(line.split()))
    return [" ".join(lines) for lines in blocks if lines]


def signature_of(node: Definition) -> str:
    """Returns ``(a, b=1)`` of a function, or ``(Base)`` of a class."""
    if isinstance(node, ast.ClassDef):
        return f"({', '.join(ast.unparse(base) for base in node.bases)})"
    return f"({ast.unparse(node.args)})"


@functools.cache
def _read() -> EmbeddedText:
    """Reads the interpreter's sources once a process (about 5 seconds)."""
    texts: list[str] = []
    objects: list[DescribedObject] = []
    for module, tree in _modules():
        texts.extend(_module_documents(module, tree))
        objects.extend(_module_objects(module, tree))
    texts.extend(_topic_documents())
    if not texts:
        raise UserError(
            "the embedded corpus is empty: this Python has no standard-library sources "
            f"(looked in {sysconfig.get_path('stdlib')}); give corpus.sources instead"
        )
    return EmbeddedText(tuple(texts), tuple(objects))


def _module_documents(module: str, tree: ast.Module) -> Iterator[str]:
    """Yields one document for the module, and for each top-level function or class."""
    yield from _document([module], [ast.get_docstring(tree)])
    for node in tree.body:
        if isinstance(node, Definition):
            inside = [node, *(child for _, child in _definitions(node, ""))]
            yield from _document(
                [child.name + signature_of(child) for child in inside],
                [ast.get_docstring(child) for child in inside],
            )


def _module_objects(module: str, tree: ast.Module) -> Iterator[DescribedObject]:
    for name, node in _definitions(tree, module):
        description = next(iter(paragraphs(ast.get_docstring(node) or "")), "")
        if len(description.split()) >= MIN_DESCRIPTION_WORDS:
            yield DescribedObject(name, signature_of(node), description)


def _topic_documents() -> Iterator[str]:
    """Yields the language topics behind ``help("...")``."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions package it apart
        return
    for name in sorted(topics):
        yield from _document([name], [topics[name]])


def _document(titles: list[str], docstrings: list[str | None]) -> Iterator[str]:
    """Yields one document of titled docstrings, or nothing when there is too little text."""
    lines: list[str] = []
    for title, docstring in zip(titles, docstrings, strict=True):
        body = paragraphs(docstring or "")
        if body:
            lines += [title, *body]
    text = "\n".join(lines)
    if len(text) >= MIN_DOCUMENT_LENGTH:
        yield text


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Yields classes and functions below a node in source order, with qualified names."""
    for child in getattr(node, "body", []):
        if isinstance(child, Definition):
            name = f"{prefix}.{child.name}" if prefix else child.name
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, name)


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Yields the parsed modules of the standard library, by file name."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in _source_files(root):
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError):  # a broken file of the interpreter is no news
            continue
        parts = file.relative_to(root).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), tree


def _source_files(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if name not in SKIPPED_FOLDERS and not name.startswith("config-")
        ]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())
