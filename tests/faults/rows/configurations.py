"""F1, F2: configurations that no run should start from."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from matrix import Finding, mutant, row

from magicbert import cli
from magicbert.config import reading
from magicbert.errors import ConfigError

FUZZER = Path(__file__).parents[1] / "fuzz_configurations.py"
ROOT = Path(__file__).parents[3]
MAX_MEGABYTES, MAX_SECONDS = 1024, 2.0
NOT_NUMBERS: tuple[Any, ...] = ("1", "text", [], {}, None, True, math.nan, math.inf, -math.inf)


def fuzz(num_examples: int, seconds: float, defence: str = "") -> Finding:
    """Runs the fuzzer in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(FUZZER), str(num_examples), str(seconds), defence],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds + 120, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    outcomes: dict[str, int] = found["outcomes"]
    num_inputs = sum(outcomes.values())
    tracebacks = sum(count for name, count in outcomes.items() if name.startswith("traceback"))
    wrong = num_inputs - tracebacks - outcomes.get("accepted", 0) - outcomes.get("refused", 0)
    # The slowest input is timed on whatever else the machine does: only hanging counts.
    is_bounded = found["peak"] < MAX_MEGABYTES and found["slowest"] < 10 * MAX_SECONDS
    figure = (
        f"{num_inputs} inputs: {tracebacks} tracebacks, {wrong} silent accepts, "
        f"{found['peak']} MB, slowest {found['slowest']:.1f} s"
    )
    if found["first"]:
        figure += f"; {found['first']}"
    is_fine = tracebacks == wrong == 0 and is_bounded and outcomes.get("accepted", 0) > 0
    return Finding(is_fine, figure, outcomes.get("refused", 0))


def command_line(folder: Path) -> list[str]:
    """Returns what the program itself does wrong with a bad file: code, traceback, silence."""
    wrong = []
    for text, named in (("run: {nam: x}", "did you mean 'name'"), ("run: *a", "not read")):
        (folder / "bad.yaml").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "magicbert", "search", "--config", str(folder / "bad.yaml")],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != 2 or "Traceback" in done.stderr or named not in done.stderr:
            wrong.append(f"{text}: {done.returncode} {done.stderr[:200]}")
    return wrong


@row(
    "F1",
    fault="configurations mutated: typos, wrong types, extremes, duplicates, depth, alias bombs, "
    "encodings, dates, raw bytes, command line",
    expected="refused with exit code 2 naming the key, or read with exactly its meaning",
    tier="P",
)
def fuzzed_configurations(folder: Path, is_thorough: bool) -> Finding:
    finding = fuzz(50_000, 110) if is_thorough else fuzz(500, 60)
    wrong = command_line(folder)
    if wrong:
        return Finding(False, f"{finding.figure}; {wrong}", finding.num_fired)
    return finding


@mutant("F1", "unknown keys are dropped")
def without_unknown_keys(folder: Path, is_thorough: bool) -> Finding:
    return fuzz(250, 30, "unknown keys")


@mutant("F1", "the last of two equal keys counts")
def without_duplicate_check(folder: Path, is_thorough: bool) -> Finding:
    return fuzz(250, 30, "duplicate keys")


@mutant("F1", "aliases and depth are not bounded")
def without_bounds(folder: Path, is_thorough: bool) -> Finding:
    return fuzz(250, 30, "aliases")


def leaf_options(kind: type, prefix: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yields dotted path, type and metadata of every option of a verb."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from leaf_options(typing.cast(type, hint), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hint, dict(field.metadata)


def edges(hint: type, metadata: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Returns the outermost numbers that are allowed, and those that are just outside."""
    allowed = metadata["range"]
    if hint is int:
        low, high = math.ceil(allowed.low), math.floor(allowed.high)
        return [low, high], [low - 1, high + 1]
    near = [math.nextafter(allowed.low, math.inf), math.nextafter(allowed.high, -math.inf)]
    far = [math.nextafter(allowed.low, -math.inf), math.nextafter(allowed.high, math.inf)]
    inside = [allowed.low if allowed.has_low else near[0], allowed.high if allowed.has_high
              else near[1]]  # fmt: skip
    outside = [far[0] if allowed.has_low else allowed.low, far[1] if allowed.has_high
               else allowed.high]  # fmt: skip
    return inside, [*outside, -1e300, 1e300]


def cases(hint: Any, metadata: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Returns values that the option must take and values that it must refuse."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = list(typing.get_args(hint))
        return choices, ["no such choice", 99, None, [], {}, True, str(choices[0]).upper() + "_"]
    if origin is tuple and dataclasses.is_dataclass(typing.get_args(hint)[0]):
        wrong_entries = [[entry] for entry in (1, "x", None, [], {"no such option": 1})]
        return [[], [{}]], [*wrong_entries, "text", 1, None, {}, [[]]]
    if origin is tuple:
        good, bad = cases(typing.get_args(hint)[0], metadata)
        wrong: list[Any] = [[value] for value in bad] + ["text", 1, None, {}, [[]]]
        return [[value] for value in good], [*wrong, [good[0]] * 10_001]
    if hint is bool:
        return [True, False], [0, 1, "true", "yes", None, [], {}]
    if hint is str:
        return ["x", "é"], [1, True, None, [], {}, "x" * 4097, "a\0b", "a\nb", "\ud800",
                            "https://u:p@host"]  # fmt: skip
    good, bad = edges(hint, metadata)

    return good, bad + list(NOT_NUMBERS) + ([0.5, 1e5] if hint is int else [])


def problems_with(kind: type, path: str, value: Any) -> list[str] | None:
    """Returns the problems of a configuration with one option set; ``None`` = it was taken."""
    tree: Any = value
    for name in reversed(path.split(".")):
        tree = {name: tree}
    try:
        config = reading.from_tree(kind, tree, "given")
    except ConfigError as error:
        return list(error.problems)
    found = reading.to_tree(config)
    for name in path.split("."):
        found = found[name]
    return None if found == value else [f"{path}: is {found!r} where {value!r} was given"]


def tabulate() -> Finding:
    """Tries every option of every verb."""
    paths: set[str] = set()
    wrong, num_refused, num_cases = [], 0, 0
    for verb, entry in cli.VERBS.items():
        for path, hint, metadata in leaf_options(entry.config):
            good, bad = cases(hint, metadata)
            num_cases += len(good) + len(bad)
            for value in bad:
                problems = problems_with(entry.config, path, value)
                num_refused += problems is not None
                if problems is None or not any(
                    line.startswith((f"{path}: ", f"{path}[")) for line in problems
                ):
                    wrong.append(f"{verb}: {path}={str(value)[:30]!r} is not refused by name")
            for value in good:
                problems = problems_with(entry.config, path, value) or []
                # What does not fit the other options may be refused, but not for its own size.
                if any(line.startswith(f"{path}: must be in [") for line in problems):
                    wrong.append(f"{verb}: {path}={value!r} is refused: {problems}")
            paths.add(path)
    figure = f"{len(paths)} options (all), {num_cases} values: {len(wrong)} misjudged"
    return Finding(not wrong, "; ".join([figure, *wrong[:5]]), num_refused)


@row(
    "F2",
    fault="every option of every verb just outside its range, at its ends, of the wrong type",
    expected="outside and wrong types refused by name; the ends taken",
    tier="P",
)
def every_option(folder: Path, is_thorough: bool) -> Finding:
    return tabulate()


@mutant("F2", "ranges are not checked")
def without_ranges(folder: Path, is_thorough: bool) -> Finding:
    with patch.object(reading, "range_problems", lambda *_: iter(())):
        return tabulate()
