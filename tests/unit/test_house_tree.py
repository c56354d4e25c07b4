"""The house rules that a machine can check: sizes, names, shipped files, versions."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from magicbert.cli import VERBS
from magicbert.config.reading import load_config

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
MAX_FUNCTION_MEDIAN = 20
VAGUE_NAMES = re.compile(r"(utils?|misc|common|helpers?)(_.*)?|.*_(utils?|misc|helpers?)")
# Home folders of the usual systems, and the like.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w|[A-Z]:\\Users")
SOURCES = sorted([*(ROOT / "magicbert").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Yields every function of a file with its number of lines."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield (
                f"{file.relative_to(ROOT)}:{node.lineno} {node.name}",
                node.end_lineno - node.lineno + 1,
            )


def test_files_stay_small():
    long = {
        str(file.relative_to(ROOT)): count
        for file in SOURCES
        if (count := len(file.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert not long


def test_functions_stay_small():
    sizes = dict(entry for file in SOURCES for entry in functions(file))
    assert not {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES}
    assert sorted(sizes.values())[len(sizes) // 2] <= MAX_FUNCTION_MEDIAN


def test_no_module_is_named_after_nothing():
    places = {part for file in SOURCES for part in (*file.relative_to(ROOT).parts[:-1], file.stem)}
    assert not [name for name in places if VAGUE_NAMES.fullmatch(name)]


def test_every_module_says_what_it_is():
    silent = [
        str(file.relative_to(ROOT))
        for file in SOURCES
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not silent


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_shipped_config_is_valid(file):
    verb = file.stem.split("-")[0]
    assert verb in VERBS, f"{file.name}: name it <verb>.yaml or <verb>-LABEL.yaml"
    load_config(VERBS[verb].config, str(file), {})


def test_tiny_configs_are_there_for_every_stage_of_the_quickstart():
    stages = {"prepare", "pretrain", "search", "retrain", "export", "finetune", "report"}
    assert {path.stem for path in (ROOT / "configs" / "tiny").glob("*.yaml")} >= stages


def tracked_files() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and file.suffix not in (".png", ".npz")]


def test_no_path_of_a_machine_is_tracked():
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for file in tracked_files()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


def pins() -> dict[str, Version]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in lines)
    return {name: Version(version) for name, version in (line.split("==") for line in lines)}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [Requirement(line) for line in lines]


def test_every_direct_dependency_is_pinned_inside_its_range():
    pinned = pins()
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints.txt does not pin {name}"
        assert pinned[name] in requirement.specifier, f"{name} {pinned[name]}"


def test_deepspeed_configuration_is_written_in_one_place():
    writers = [
        str(file.relative_to(ROOT))
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == "zero_optimization"
    ]
    assert len(set(writers)) == 1, f"the DeepSpeed configuration stands in {writers}"
    for folder in ("configs", "launch"):
        assert not list((ROOT / folder).rglob("*.json")), "DeepSpeed JSON is derived, not shipped"
