"""The offline task: does this description belong to this function?

It is made from the documentation of the running Python, in the format of QNLI: ``question`` is a
name with its parameters, ``sentence`` a description, ``label`` says whether they belong together.

Every object gives two rows. In one it meets its own description, in the other that of another
object of its split, of the same module where the module has several. The others are dealt by a
cycle, so each signature and each description stands exactly once under either label: length or
wording of one side alone says nothing. No object, and no description, is in both splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

from magicbert.errors import UserError
from magicbert.finetune.tasks import EMBEDDED
from magicbert.records import write_text_atomically

NUM_TRAIN_ROWS = 2000
NUM_DEV_ROWS = 400
MIN_OBJECTS = 8
MAX_WORDS = 48
HEADER = ("index", *EMBEDDED.texts, EMBEDDED.label)


class Described(Protocol):
    """An object with documentation, such as `magicbert.data.embedded.DescribedObject`."""

    @property
    def name(self) -> str:
        """Dotted name."""

    @property
    def signature(self) -> str:
        """Its parameters, in parentheses."""

    @property
    def description(self) -> str:
        """What it does."""


def write_embedded_task(root: Path, objects: Iterable[Described]) -> None:
    """Writes ``train.tsv`` and ``dev.tsv`` below ``root``, the same for the same objects.

    Raises:
        UserError: there are too few objects to build a task from.
    """
    usable = distinct_objects(objects)
    if len(usable) < MIN_OBJECTS:
        raise UserError(
            f"task embedded: {len(usable)} documented objects found, {MIN_OBJECTS} are needed; "
            "this Python seems to run without docstrings (-OO)"
        )
    num_dev = min(NUM_DEV_ROWS // 2, len(usable) // 4)
    splits = {"dev": usable[:num_dev], "train": usable[num_dev:][: NUM_TRAIN_ROWS // 2]}
    for split, members in splits.items():
        lines = ["\t".join(HEADER)]
        lines += [f"{index}\t{row}" for index, row in enumerate(split_rows(members))]
        path = root / EMBEDDED.folder / f"{split}.tsv"
        write_text_atomically(path, "\n".join(lines) + "\n")


def distinct_objects(objects: Iterable[Described]) -> list[Described]:
    """Returns objects with distinct descriptions, shuffled by the hash of the name.

    Inherited docstrings stand at many objects; as a wrong pair they would be a right one.
    """
    kept: dict[str, Described] = {}
    for item in sorted(objects, key=lambda item: item.name):
        kept.setdefault(one_line(item.description), item)
    kept.pop("", None)
    return sorted(kept.values(), key=lambda item: shuffle_key(item.name))


def split_rows(members: Sequence[Described]) -> list[str]:
    """Returns the rows of one split, without their index, in shuffled order."""
    right, wrong = EMBEDDED.labels
    rows = [(item, item, right) for item in members]
    rows += [(item, other, wrong) for item, other in deal_others(members)]
    rows.sort(key=lambda row: shuffle_key(row[0].name + "\t" + row[2]))
    return [
        "\t".join((question(item), one_line(other.description), label))
        for item, other, label in rows
    ]


def deal_others(members: Sequence[Described]) -> list[tuple[Described, Described]]:
    """Returns each object with another one, each being dealt once.

    Objects of one module form a cycle; those that are alone in their module form one together.
    """
    by_module = sorted(members, key=lambda item: (module_of(item.name), shuffle_key(item.name)))
    groups = [list(group) for _, group in groupby(by_module, key=lambda item: module_of(item.name))]
    cycles = [group for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    if len(alone) == 1 and cycles:
        cycles[0].append(alone[0])
    elif alone:
        cycles.append(alone)
    return [
        (item, cycle[(position + 1) % len(cycle)])
        for cycle in cycles
        for position, item in enumerate(cycle)
    ]


def question(item: Described) -> str:
    """Returns how an object is called, such as ``textwrap.dedent(text)``."""
    return one_line(item.name + item.signature)


def module_of(name: str) -> str:
    """Returns the first part of a dotted name."""
    return name.partition(".")[0]


def one_line(text: str) -> str:
    """Returns the first words of a text, on one line."""
    return " ".join(text.split()[:MAX_WORDS])


def shuffle_key(text: str) -> str:
    """Returns a key that orders texts as if at random, the same everywhere."""
    return hashlib.sha256(text.encode()).hexdigest()
