"""The offline SQuAD task: questions about the voyages of invented ships.

An article is a ship, a paragraph one of its voyages, told in four of five facts. Every paragraph is
asked for all five, so one question in five has no answer, as version 2.0 has them. Training and
dev tell of different ships.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.finetune.squad.task import SquadTask
from magicbert.records import write_text_atomically

NUM_SHIPS = {"train": 48, "dev": 12}
NUM_VOYAGES = 2
SEED = 1871
FIRST_NAMES = ("Silver", "Northern", "Patient", "Lucky", "Grey", "Early", "Quiet", "Second")
LAST_NAMES = ("Heron", "Lantern", "Anchor", "Harvest", "Morning", "Widow", "Compass", "Swallow")
PORTS = ("Ardholm", "Bellmouth", "Cairn Bay", "Dunwick", "Eastferry", "Fallow Sound")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
CARGOES = ("salted fish", "window glass", "barley", "roof slates", "lamp oil", "wool")
PEOPLE = ("Ada Moor", "Tom Reed", "Ines Falk", "Jon Birch", "Mary Stone", "Piet Vane")


@dataclass(frozen=True)
class Fact:
    """One thing that may be told of a voyage.

    Attributes:
        question: how it is asked for.
        sentence: how it is told; ``{value}`` is the answer.
        values: what the answer may be.
    """

    question: str
    sentence: str
    values: tuple[str, ...]


FACTS = (
    Fact("Where did the {ship} load?", "The {ship} loaded in {value}.", PORTS),
    Fact("When did the {ship} leave?", "She left on {value} with the tide.", DAYS),
    Fact("What did the {ship} carry?", "Below deck there was {value}.", CARGOES),
    Fact("Who was the captain of the {ship}?", "Captain {value} had the command.", PEOPLE),
    Fact(
        "How long was the {ship} at sea?", "The voyage took {value} in all.",
        tuple(f"{days} days" for days in range(11, 31)),
    ),
)  # fmt: skip


def write_embedded_squad(root: Path, task: SquadTask) -> None:
    """Writes the train and the dev file below ``root``, the same every time."""
    generator = random.Random(SEED)
    ships = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    generator.shuffle(ships)
    for split, count in NUM_SHIPS.items():
        members, ships = ships[:count], ships[count:]
        tree = {
            "version": f"v{task.version}",
            "data": [article(ship, generator) for ship in members],
        }
        text = json.dumps(tree, indent=1) + "\n"
        write_text_atomically(root / f"{task.stem(split)}.json", text)


def article(ship: str, generator: random.Random) -> dict[str, Any]:
    """Returns the article of one ship."""
    paragraphs = [voyage(ship, number, generator) for number in range(NUM_VOYAGES)]
    return {"title": ship.replace(" ", "_"), "paragraphs": paragraphs}


def voyage(ship: str, number: int, generator: random.Random) -> dict[str, Any]:
    """Returns one paragraph with its five questions."""
    told = generator.sample(FACTS, len(FACTS) - 1)
    values = {fact: generator.choice(fact.values) for fact in told}
    context = " ".join(fact.sentence.format(ship=ship, value=values[fact]) for fact in told)
    rows = list(questions(ship, number, context, values))
    return {"context": context, "qas": rows}


def questions(
    ship: str, number: int, context: str, values: dict[Fact, str]
) -> Iterator[dict[str, Any]]:
    """Yields the question for every fact, told or not."""
    for position, fact in enumerate(FACTS):
        answers = []
        if fact in values:
            told = fact.sentence.format(ship=ship, value=values[fact])
            start = context.index(told) + told.index(values[fact])
            answers.append({"text": values[fact], "answer_start": start})
        yield {
            "id": f"{ship.replace(' ', '-').lower()}-{number}-{position}",
            "question": fact.question.format(ship=ship),
            "answers": answers,
            "is_impossible": not answers,
        }
