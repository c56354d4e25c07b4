"""G2, G6: what must not stand in the source at all."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from matrix import Finding, mutant, row
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
FOLDERS = ("magicbert", "kernels", "benchmarks", "launch")
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
BANNED_CALLS = {
    "eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load",
    "yaml.unsafe_load_all", "yaml.load_all", "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip
BANNED_KEYWORDS = {("shell", True), ("trust_remote_code", True), ("allow_pickle", True)}
# The one place that calls yaml.load, with a loader of its own that only makes plain data.
ALLOWED = {("magicbert/config/yaml_text.py", "yaml.load")}
BANNED_SNIPPETS = {
    "import pickle": "import pickle",
    "from pickle": "from pickle import loads",
    "torch.load": "import torch\ntorch.load('x')",
    "torch.load, unsafe": "import torch\ntorch.load('x', weights_only=False)",
    "yaml.load": "import yaml\nyaml.load('x', Loader=yaml.Loader)",
    "eval": "eval('1')",
    "exec": "exec('1')",
    "shell=True": "import subprocess\nsubprocess.run('ls', shell=True)",
    "os.system": "import os\nos.system('ls')",
    "extractall": "import tarfile\ntarfile.open('x').extractall('y')",
    "extractall, unsafe": "import tarfile\ntarfile.open('x').extractall('y', filter='tar')",
    "trust_remote_code=True": "load('x', trust_remote_code=True)",
    "allow_pickle=True": "import numpy\nnumpy.load('x', allow_pickle=True)",
}


def hits(source: str, name: str) -> Iterator[str]:
    """Yields what is banned in one file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            modules = []
        for module in modules:
            if module.split(".")[0] in BANNED_MODULES:
                yield f"{name}:{node.lineno}: import {module}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            found = banned_call(node)
            if found and (name, found) not in ALLOWED:
                yield f"{name}:{node.lineno}: {found}"


def banned_call(node: ast.Call) -> str:
    """Names what is wrong with a call, or nothing."""
    called = ast.unparse(node.func)
    given = {
        word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)
    }
    if called in BANNED_CALLS or called == "yaml.load":
        return called
    if called == "torch.load" and given.get("weights_only") is not True:
        return "torch.load without weights_only=True"
    if called.endswith(".extractall") and given.get("filter") != "data":
        return "extractall without filter='data'"
    return next((f"{key}={value}" for key, value in given.items() if (key, value) in
                 BANNED_KEYWORDS), "")  # fmt: skip


def scan(extra: str = "") -> Finding:
    """Scans all sources, and those of the banned snippets, which must be seen."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    found = [
        line
        for file in files
        for line in hits(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    ]
    found += hits(extra, "an added file")
    seen = [name for name, text in BANNED_SNIPPETS.items() if list(hits(text, "snippet"))]
    figure = f"{len(files)} files: {len(found)} hits; {len(seen)} of {len(BANNED_SNIPPETS)} seen"
    is_fine = not found and len(seen) == len(BANNED_SNIPPETS)
    return Finding(is_fine, "; ".join([figure, *found[:5]]), len(seen))


@row(
    "G2",
    fault="source scanned for pickle, unsafe torch.load and yaml.load, eval, exec, shells, bare "
    "extractall, trust_remote_code=True, allow_pickle=True",
    expected="no hit",
    tier="P",
)
def static_ban(folder: Path, is_thorough: bool) -> Finding:
    return scan()


@mutant("G2", "a file that loads a pickle with torch")
def with_torch_load(folder: Path, is_thorough: bool) -> Finding:
    return scan("import torch\nstate = torch.load('checkpoint.pt', map_location='cpu')")


@mutant("G2", "a file that lets models bring code")
def with_remote_code(folder: Path, is_thorough: bool) -> Finding:
    return scan("model = AutoModel.from_pretrained(name, trust_remote_code=True)")


def requirements(extra: str = "") -> list[Requirement]:
    """Returns the dependencies, those of all extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    lines = [*project["dependencies"], *extras, *([extra] if extra else [])]
    return [Requirement(line) for line in lines]


def dependencies(extra: str = "") -> Finding:
    """Compares the dependencies with the pins, and looks for names that are not what they seem."""
    pins = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    names = {canonicalize_name(entry.name) for entry in requirements(extra)}
    # `apex` on PyPI is a web framework, not NVIDIA's; `kernels` runs code from the hub.
    wrong = sorted(names & {"apex", "kernels", "flash-attn"})
    unpinned = sorted(names - pins)
    figure = f"{len(names)} direct dependencies: {len(unpinned)} not pinned, {len(wrong)} unwanted"
    return Finding(not wrong and not unpinned, "; ".join([figure, *wrong, *unpinned]), len(names))


@row(
    "G6",
    fault="dependencies and extras read from pyproject.toml",
    expected="each pinned in constraints.txt; no `apex` (on PyPI another package), no `kernels`",
    tier="P",
)
def supply_chain(folder: Path, is_thorough: bool) -> Finding:
    return dependencies()


@mutant("G6", "an extra that names apex")
def with_apex(folder: Path, is_thorough: bool) -> Finding:
    return dependencies("apex")
