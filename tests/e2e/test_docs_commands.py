"""Every command in the documentation is one that exists, with options that are read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from magicbert.cli import VERBS, parse
from magicbert.config.plan_section import PlanConfig
from magicbert.config.reading import load_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "kernels" / "README.md"])
FENCE = re.compile(r"^```(?:console|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Programs of the system that the documentation may name.
KNOWN = {"magicbert", "make", "deepspeed", "sbatch", "source", "python"}


def commands() -> list[tuple[str, list[str]]]:
    """Returns page and words of every command in a console or bash block."""
    found = []
    for page in PAGES:
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while words and ASSIGNMENT.fullmatch(words[0]):
                    del words[0]
                if words:
                    found.append((str(page.relative_to(ROOT)), words))
    return found


COMMANDS = commands()


def ids(commands: list[tuple[str, list[str]]]) -> list[str]:
    return [f"{page}: {' '.join(words)[:60]}" for page, words in commands]


def test_there_are_commands_of_every_verb_and_no_other_program():
    starters = {f"launch/{file.name}" for file in (ROOT / "launch").glob("*.sh")}
    assert {words[0] for _, words in COMMANDS} <= KNOWN | starters
    shown = {words[1] for _, words in COMMANDS if words[0] == "magicbert"}
    assert shown | {"quickstart"} == set(VERBS) | {"VERB"} & shown


STARTING = [
    (page, words)
    for page, words in COMMANDS
    if "magicbert" in words or words[0] == "sbatch" or words[0].startswith("launch/")
]


@pytest.mark.parametrize(("page", "words"), STARTING, ids=ids(STARTING))
def test_magicbert_commands_are_read(page, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    # `magicbert VERB ...`, or a starter with the verb among its words.
    is_starter = "magicbert" not in words
    start = next(i for i, word in enumerate(words) if word in VERBS) if is_starter else 0
    start = start or words.index("magicbert") + 1
    for file in words[: start - 1]:
        if "/" in file:
            assert (ROOT / file).is_file()
    request = parse(words[start:])
    assert request is not None
    load_config(VERBS[request.verb].config, request.file, request.overrides)
    load_config(PlanConfig, None, request.plan_options)


@pytest.mark.parametrize(
    "words",
    [words for _, words in COMMANDS if words[0] == "make"],
    ids=ids([entry for entry in COMMANDS if entry[1][0] == "make"]),
)
def test_make_targets_exist_and_ci_runs_the_two_of_the_readme(words):
    for target in (word for word in words[1:] if "=" not in word):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)
        assert target in ("test-all", "faults") or f"\nmake {target}\n" in CI


# `python -m magicbert` is no script: it is read above.
SCRIPTS = [(page, words) for page, words in COMMANDS if words[0] == "python" and words[1] != "-m"]


@pytest.mark.parametrize("words", [words for _, words in SCRIPTS], ids=ids(SCRIPTS))
def test_scripts_stand_where_they_are_named_and_have_a_test(words):
    assert (ROOT / words[1]).is_file()
    assert any(words[1] in test.read_text() for test in (ROOT / "tests" / "unit").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_architecture_page_names_every_room_and_no_other():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.split("## The house")[1].split("```")[1]
    named = set(re.findall(r"^  (\w+(?:/|\.py)) ", tree, re.MULTILINE))
    package = ROOT / "magicbert"
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    rooms |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert {name for name in rooms if name != "stages/"} == named - {"stages/"}
    tops = set(re.findall(r"^(\w+)/ ", tree, re.MULTILINE))
    assert tops <= {path.name for path in ROOT.iterdir() if path.is_dir()}


def test_the_readme_lists_every_verb():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Verbs")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(VERBS)
