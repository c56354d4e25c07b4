"""Who may import whom, read from the source: the arrows of docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "magicbert"
KERNELS = ROOT / "kernels" / "magicbert_kernels"
MODELING = PACKAGE / "bert" / "modeling"

LEAVES = {
    "",
    "errors",
    "bootstrap",
    "faults",
    "interrupts",
    "line_file",
    "markdown",
    "records",
    "redaction",
    "run_lock",
    "trail",
    "config",
}
CORE = LEAVES | {"space", "data", "supernet", "training"}
ROOMS = CORE | {
    "bench",
    "comparison",
    "compression",
    "interference",
    "ranking",
    "study",
    "search",
    "report",
    "export",
    "finetune",
    "bert",
    "planning",
    "stages",
}
ARROWS = {
    "": set(),
    "bootstrap": set(),
    "errors": set(),
    "faults": set(),
    "interrupts": set(),
    "leaving": set(),
    "redaction": set(),
    "config": {"errors", "redaction"},
    "line_file": set(),
    "markdown": set(),
    "run_lock": {"errors"},
    "records": {"errors", "faults"},
    "trail": LEAVES,
    "space": LEAVES,
    "data": LEAVES | {"space"},
    "supernet": LEAVES | {"space"},
    "training": CORE - {"training"},
    "bert": LEAVES | {"space", "data", "supernet"},
    "bench": CORE | {"interference", "bert"},
    "compression": CORE | {"bert"},
    "interference": LEAVES | {"space", "supernet"},
    "planning": LEAVES | {"space"},
    "ranking": LEAVES | {"space"},
    "study": CORE | {"ranking"},
    "search": CORE,
    "report": CORE | {"ranking"},
    "export": CORE | {"bert"},
    "comparison": CORE | {"bench", "bert", "export", "finetune"},
    "finetune": CORE | {"bert"},
    "stages": ROOMS,
    "cli": LEAVES | {"stages"},
    "__main__": {"cli", "leaving"},
}
MAY_USE_KERNELS = {"supernet", "bert", "bench", "stages"}


def imported_modules(source: str, package: str = "") -> Iterator[str]:
    """Yields the absolute name of every imported module, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # `from magicbert import records` names a room as well.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def package_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).parent.parts)


def room_of(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def room_named(module: str) -> str | None:
    """Returns the room of an imported magicbert module; ``None`` for other packages."""
    head, *rest = module.split(".")
    if head != "magicbert":
        return None
    return rest[0] if rest and rest[0] in ARROWS else ""


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def test_every_room_has_its_arrows():
    rooms = {room_of(file) for file in python_files(PACKAGE)}
    assert rooms <= set(ARROWS), f"say in ARROWS what {rooms - set(ARROWS)} may import"


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_imports_follow_the_arrows(room):
    allowed = ARROWS[room] | {room}
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in python_files(PACKAGE)
        if room_of(file) == room
        for module in imported_modules(file.read_text(encoding="utf-8"), package_of(file))
        if room_named(module) is not None and room_named(module) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_only_supernet_tenants_and_benchmarks_use_the_kernels():
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in python_files(PACKAGE)
        if room_of(file) not in MAY_USE_KERNELS
        for module in imported_modules(file.read_text(encoding="utf-8"), package_of(file))
        if module.split(".")[0] == "magicbert_kernels"
    ]
    assert not wrong, "\n".join(wrong)


def test_kernels_import_torch_and_triton_only():
    allowed = sys.stdlib_module_names | {"torch", "triton", "magicbert_kernels"}
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in python_files(KERNELS)
        for module in imported_modules(file.read_text(encoding="utf-8"), "magicbert_kernels")
        if module.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_modeling_folder_is_flat_and_stands_alone():
    folders = [path for path in MODELING.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert not folders, f"remote code finds flat siblings only: {folders}"
    wrong = [
        f"{file.name}: {problem}"
        for file in python_files(MODELING)
        for problem in modeling_problems(file.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def modeling_problems(source: str) -> Iterator[str]:
    """Yields imports that would break the folder once it is copied beside exported weights."""
    tree = ast.parse(source)
    guarded = {
        id(node)
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    allowed = sys.stdlib_module_names | {"torch", "transformers"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > 1 or not node.module or "." in node.module:
                yield f"line {node.lineno} is not an import from a sibling file"
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for head in (name.split(".")[0] for name in names):
            if head == "magicbert_kernels" and id(node) in guarded:
                continue
            if head not in allowed:
                yield f"line {node.lineno} imports {head}"


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        ("from .operators import build_operator\nimport torch\nimport math", 0),
        ("try:\n    import magicbert_kernels\nexcept ImportError:\n    pass", 0),
        ("import magicbert_kernels", 1),
        ("from ..supernet import Supernet", 1),
        ("from . import operators", 1),
        ("def late():\n    from magicbert.errors import UserError", 1),
    ],
)
def test_modeling_rule_sees_what_it_should(source, problems):
    assert len(list(modeling_problems(source))) == problems


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from magicbert.bert.modeling import x", {"bert"}),
        ("from magicbert import records", {"records"}),
        ("import magicbert.training.loop as loop", {"training"}),
        ("def late():\n    from magicbert import __version__", {""}),
        ("from ..bert import spaces", {"bert"}),
        ("import torch", {None}),
    ],
)
def test_import_reader_names_the_room(source, rooms):
    assert {room_named(name) for name in imported_modules(source, "magicbert.search")} == rooms


def test_kernels_folder_shadows_no_package(tmp_path):
    """A regular package called `kernels` must win over the source root of that name."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "tests" / "kernels").exists()
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("MARK = 'the other package'\n")
    program = f"import sys; sys.path.append({str(tmp_path)!r}); import kernels; print(kernels.MARK)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "the other package"
