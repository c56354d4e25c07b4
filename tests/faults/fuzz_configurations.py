"""Feeds mutated configurations to the reader; prints what became of them as JSON.

    python tests/faults/fuzz_configurations.py EXAMPLES SECONDS [DEFENCE]

A process of its own, so that its peak memory is that of reading. ``DEFENCE`` names one that is
taken out first. What an accepted file means is read a second time by PyYAML's ``BaseLoader``,
which takes every scalar as text: the parsed object must hold exactly that.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from magicbert import cli
from magicbert.config import reading, yaml_text
from magicbert.errors import UserError

EXAMPLES_OF_A_BATCH = 250
LETTERS = "abcdefghijklmnopqrstuvwxyz_"
# As it stands in the file, of every kind that readers of YAML have got wrong.
SCALARS = (
    "0", "1", "-1", "7", "5.0", "1e-4", "1e999", "-.inf", ".nan", "nan", "NaN", "inf", "010",
    "0x10", "0b1", "1:30", "1_000", "yes", "no", "on", "null", "~", "''", "true", "'true'", "True",
    "2001-01-01", "2001-13-45", "'5'", "[]", "[1, 2]", "[a, b]", "{}", "{a: 1}", "[[1]]", "- 1",
    "text", '"a\\0b"', '"a\\nb"', '"\\ud800"', "é", "\u2028", "9" * 30, "9" * 5000, "1e-320",
    "-0.0", "4294967296", "18446744073709551616", "!!int 5", "!!float x", "!!python/name:os.system",
    "!!timestamp 2001-13-45", "!!binary ''", "&a 5", "*a", "<<", "=", "?", "|", ">", "x" * 5000,
    "https://u:p@host", "../..", "$HOME", "%s", "{{x}}",
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One input.

    Attributes:
        verb: whose configuration it is.
        data: the bytes of the file.
        options: words of the command line after the verb.
        must_name: text that the refusal has to hold; empty = whatever is accepted must be meant.
    """

    verb: str
    data: bytes
    options: tuple[str, ...] = ()
    must_name: str = ""


def tree_of(verb: str) -> dict[str, Any]:
    return reading.to_tree(cli.VERBS[verb].config())


def leaves(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the paths of all options."""
    found = []
    for name, value in tree.items():
        path = (*prefix, name)
        found += leaves(value, path) if isinstance(value, dict) else [path]
    return found


TREES = {verb: tree_of(verb) for verb in cli.VERBS if verb != "doctor"}
WHOLE = {verb: reading.dump_yaml(tree) for verb, tree in TREES.items()}
LEAVES = {verb: leaves(tree) for verb, tree in TREES.items()}


def typo(draw: Any, word: str) -> str:
    """Returns a word at edit distance 1, or with two neighbours exchanged."""
    place = draw(st.integers(0, len(word) - 1))
    letter = draw(st.sampled_from(LETTERS))
    kind = draw(st.sampled_from(["insert", "delete", "replace", "swap"]))
    before, here, after = word[:place], word[place], word[place + 1 :]
    return {
        "insert": before + letter + here + after,
        "delete": before + after or "_",
        "replace": before + letter + after,
        "swap": before + after[:1] + here + after[1:],
    }[kind]


def first_unknown(tree: Any, names: list[str]) -> str:
    """Returns the part of a dotted path up to the first name that is not known, or nothing."""
    for count, name in enumerate(names, start=1):
        if not isinstance(tree, dict) or name not in tree:
            return ".".join(names[:count])
        tree = tree[name]
    return ""


def text_of(path: tuple[str, ...], value: str) -> str:
    """Returns a file that sets one option."""
    lines = ["  " * depth + f"{name}:" for depth, name in enumerate(path)]
    return "\n".join(lines) + f" {value}\n"


@st.composite
def mutations(draw: Any) -> Mutation:  # noqa: C901 (one branch for each kind)
    """Draws one mutated configuration."""
    verb = draw(st.sampled_from(sorted(TREES)))
    path = draw(st.sampled_from(LEAVES[verb]))
    whole = WHOLE[verb]
    kind = draw(st.sampled_from(["value", "section", "typo", "twice", "bytes", "deep", "bomb",
                                 "encoding", "option", "option typo", "free"]))  # fmt: skip
    scalar = draw(st.sampled_from(SCALARS) | st.text(max_size=8) | st.floats().map(repr))
    if kind == "value":
        return Mutation(verb, text_of(path, scalar).encode("utf-8", "surrogatepass"))
    if kind == "section":
        text = text_of(path[:1], scalar)
        return Mutation(verb, text.encode("utf-8", "surrogatepass"))
    if kind == "typo":
        depth = draw(st.integers(0, len(path) - 1))
        wrong = typo(draw, path[depth])
        siblings = list(TREES[verb]) if depth == 0 else list(TREES[verb][path[0]])
        text = text_of((*path[:depth], wrong, *path[depth + 1 :]), "1")
        return Mutation(verb, text.encode(), (), "" if wrong in siblings else wrong)
    if kind == "twice":
        line = f"\n{path[0]}: {{}}\n" if len(path) > 1 else f"\n{path[0]}: x\n"
        return Mutation(verb, (whole + line).encode(), (), path[0])
    if kind == "bytes":
        data = bytearray(whole.encode())
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.integers(0, len(data) - 1))
            new = bytes([draw(st.integers(0, 255))])
            data[place : place + draw(st.integers(0, 1))] = new[: draw(st.integers(0, 1))]
        return Mutation(verb, bytes(data))
    if kind == "deep":
        depth = draw(st.integers(20, 3000))
        opening = draw(st.sampled_from(["[", "{a: ", "- "]))
        return Mutation(verb, text_of(path, opening * depth).encode(), (), "line")
    if kind == "bomb":
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        return Mutation(verb, "\n".join(lines).encode(), (), "aliases")
    if kind == "encoding":
        coding = draw(st.sampled_from(["utf-16", "utf-32", "utf-16-le", "utf-8-sig", "cp500"]))
        return Mutation(verb, whole.encode(coding), (), "" if coding == "utf-8-sig" else "given")
    if kind == "free":
        return Mutation(verb, draw(st.binary(max_size=40)))
    name = ".".join(path)
    wrong = typo(draw, name) if kind == "option typo" else name
    must = first_unknown(TREES[verb], wrong.split(".")) if kind == "option typo" else ""
    return Mutation(verb, b"", (f"--{wrong}={scalar}",), must)


def meant(value: Any, text: Any) -> bool:
    """Whether a value of the parsed object is what the text of the file says."""
    if isinstance(value, dict):
        # Nothing in a section means its defaults.
        given = {} if text in ("", "~", "null", "Null", "NULL") else text
        if not isinstance(given, dict) or not given.keys() <= value.keys():
            return False
        return all(meant(value[name], inner) for name, inner in given.items())
    if isinstance(value, list):
        same = isinstance(text, list) and len(text) == len(value)
        return same and all(meant(*pair) for pair in zip(value, text, strict=True))
    if isinstance(value, bool):
        return text in ("true", "True", "TRUE") if value else text in ("false", "False", "FALSE")
    if isinstance(value, int | float):
        return isinstance(text, str) and float(text.replace("_", "")) == value
    return bool(value == text)


def judge(mutation: Mutation, file: Path) -> str:
    """Returns ``accepted``, ``refused``, or what is wrong."""
    file.write_bytes(mutation.data)
    kind = cli.VERBS[mutation.verb].config
    try:
        words = ["--config", str(file), *mutation.options]
        request = cli.parse([mutation.verb, *words])
        assert request is not None
        config = reading.load_config(kind, request.file, request.overrides)
    except UserError as error:
        return "refused" if mutation.must_name[:60] in str(error) else "refusal names no key"
    except Exception as error:
        return f"traceback {type(error).__name__}"
    if mutation.must_name:
        return "silent accept"
    tree = reading.to_tree(config)
    if reading.from_tree(kind, yaml_text.parse_yaml(reading.to_yaml(config)), "again") != config:
        return "no round trip"
    if mutation.options:
        name, _, text = mutation.options[0].removeprefix("--").partition("=")
        for part in name.split("."):
            tree = tree[part]
        given = text if isinstance(tree, str) else yaml.load(text, Loader=yaml.BaseLoader)
        return "accepted" if meant(tree, given) else "silent accept"
    given = yaml.load(mutation.data.decode("utf-8-sig"), Loader=yaml.BaseLoader)
    return "accepted" if meant(tree, {} if given is None else given) else "silent accept"


def take_out(defence: str) -> None:
    """Removes one defence of the reader."""
    if defence == "unknown keys":
        true_build = reading.build

        def forgiving(kind: type, tree: Any, *rest: Any) -> Any:
            names = {field.name for field in dataclasses.fields(kind)}
            known = tree
            if isinstance(tree, dict):
                known = {name: value for name, value in tree.items() if name in names}
            return true_build(kind, known, *rest)

        reading.build = forgiving
    elif defence == "duplicate keys":
        yaml_text.StrictLoader.construct_mapping = yaml.SafeLoader.construct_mapping
    elif defence == "aliases":
        yaml_text.StrictLoader.compose_node = yaml.SafeLoader.compose_node


def main() -> None:
    """Runs batches until the examples or the seconds are used up."""
    num_wanted, num_seconds = int(sys.argv[1]), float(sys.argv[2])
    take_out(sys.argv[3] if len(sys.argv) > 3 else "")
    outcomes: Counter[str] = Counter()
    first: dict[str, str] = {}
    slowest, start, batch = 0.0, time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "given.yaml"

        def one(mutation: Mutation) -> None:
            nonlocal slowest
            before = time.monotonic()
            outcome = judge(mutation, file)
            slowest = max(slowest, time.monotonic() - before)
            outcomes[outcome] += 1
            first.setdefault(outcome, repr(mutation)[:400])

        limits = settings(
            max_examples=EXAMPLES_OF_A_BATCH, database=None, deadline=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        while outcomes.total() < num_wanted and time.monotonic() - start < num_seconds:
            seed(batch)(limits(given(mutations())(one)))()
            batch += 1
    first = {name: text for name, text in first.items() if name not in ("accepted", "refused")}
    # Of this program alone: getrusage would count the memory of its parent, too.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    print(json.dumps({"outcomes": outcomes, "first": first, "slowest": slowest, "peak": peak}))


if __name__ == "__main__":
    main()
