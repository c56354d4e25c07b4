"""doctor: what this machine offers, what is missing, and the command that mends it.

Nothing is imported here that may be missing: every check says so instead of failing.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from magicbert.config.roots import DoctorConfig
from magicbert.errors import UserError

# Packages whose range was tested, not only declared; the ranges stand in the package's metadata.
TESTED = ("torch", "deepspeed", "transformers", "triton", "datasets", "tokenizers")
APEX_SYMBOLS = {
    "FusedLAMB": "apex.optimizers",
    "FusedLayerNorm": "apex.normalization",
}
COLOURS = {"ok": "green", "missing": "red", "optional": "yellow"}


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        name: what was looked for.
        state: ``missing`` keeps magicbert from running; ``optional`` does not.
        found: what there is.
        remedy: the command that mends it; empty if nothing is to be done.
    """

    name: str
    state: Literal["ok", "missing", "optional"]
    found: str
    remedy: str = ""


def run(config: DoctorConfig) -> None:
    """Prints the findings.

    Raises:
        UserError: something that magicbert needs is missing.
    """
    # Packages remark on what they do not find while they load; the table says it better.
    logging.disable(logging.WARNING)
    findings = [finding for check in CHECKS for finding in check()]
    logging.disable(logging.NOTSET)
    show(findings)
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if missing:
        raise UserError(f"missing or not in the tested range: {', '.join(missing)}")


def show(findings: list[Finding]) -> None:
    """Prints a table on a terminal, plain lines elsewhere."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        for finding in findings:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            print(f"{finding.state:<9} {finding.name}: {finding.found}{remedy}")
        return
    table = Table(box=box.SIMPLE_HEAD, title="What this machine offers", title_justify="left")
    for head in ("", "what", "found", "to mend"):
        table.add_column(head, overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=COLOURS[finding.state])
        table.add_row(state, finding.name, finding.found, finding.remedy)
    console.print(table)


def check_python() -> Iterator[Finding]:
    """The interpreter, and the headers that building operators needs."""
    allowed = SpecifierSet(metadata.metadata("magicbert")["Requires-Python"])
    version = platform.python_version()
    state: Literal["ok", "missing"] = "ok" if version in allowed else "missing"
    remedy = "" if state == "ok" else "make PYTHON=python3.12 quickstart"
    yield Finding("Python", state, f"{version} (tested: {range_text(allowed)})", remedy)
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if header.exists():
        yield Finding("Python headers", "ok", str(header.parent))
    else:
        yield Finding("Python headers", "missing", "no Python.h", "apt-get install python3-dev")


def check_versions() -> Iterator[Finding]:
    """Installed packages against the ranges they were tested in."""
    needed = [Requirement(line) for line in metadata.requires("magicbert") or ()]
    for requirement in needed:
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name not in TESTED or not applies:
            continue
        remedy = f'pip install "{requirement.name}{range_text(requirement.specifier)}"'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding(requirement.name, "missing", "not installed", remedy)
            continue
        # A local build such as 2.13.0+cpu counts as its release.
        tested = f"{version} (tested: {range_text(requirement.specifier)})"
        if requirement.specifier.contains(version, prereleases=True):
            yield Finding(requirement.name, "ok", tested)
        else:
            yield Finding(requirement.name, "missing", tested, remedy)


def check_devices() -> Iterator[Finding]:
    """Processors and accelerators."""
    yield Finding("processors", "ok", f"{os.cpu_count()} ({platform.machine()})")
    torch = import_or_none("torch")
    if torch is None:
        return
    if not torch.cuda.is_available():
        yield Finding("GPU", "optional", "none visible: stages run on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: train with fp16 or fp32"
        yield Finding(f"GPU {index}", "ok", f"{properties.name}, {memory:.0f} GiB, {bf16}")


def check_building() -> Iterator[Finding]:
    """What DeepSpeed needs to build an operator at its first use."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler:
        yield Finding("C++ compiler", "ok", compiler)
    else:
        yield Finding("C++ compiler", "missing", "none on the path", "apt-get install g++")
    ninja = shutil.which("ninja")
    if ninja:
        yield Finding("ninja", "ok", ninja)
    else:
        remedy = "activate the environment it was installed in, or pip install ninja"
        yield Finding("ninja", "missing", "none on the path", remedy)


def check_deepspeed() -> Iterator[Finding]:
    """The accelerator that DeepSpeed sees, and the operator it builds first on a CPU."""
    environment = import_or_none("magicbert.training.starting.environment")
    if environment is None:
        return
    accelerator = environment.accelerator()
    backend = accelerator.communication_backend_name()
    yield Finding("DeepSpeed device", "ok", f"{accelerator.device_name()}, ranks talk by {backend}")
    if accelerator.device_name() != "cpu":
        return
    from magicbert.training.starting.operator_build import operator_file

    file = operator_file(accelerator)
    state = "is built" if file.exists() else "is built when training first starts"
    yield Finding("DeepSpeed operators", "ok", f"{file.stem} {state}")


def check_kernels() -> Iterator[Finding]:
    """Which implementation of the kernels runs."""
    torch = import_or_none("torch")
    if torch is None:
        return
    from magicbert_kernels.backend import is_interpreted, resolve_backend

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = resolve_backend("auto", device)
    yield Finding("kernels", "ok", f"backend {chosen} on {device.type}")
    if is_interpreted():
        found = "TRITON_INTERPRET=1: kernels run in Python, for tests only"
        yield Finding("Triton interpreter", "optional", found, "unset TRITON_INTERPRET")


def check_apex() -> Iterator[Finding]:
    """NVIDIA's fused optimizer and norm, by symbol: the package alone proves nothing."""
    if importlib.util.find_spec("apex") is None:
        yield Finding("apex", "optional", "not installed: torch's fused AdamW and LayerNorm serve")
        return
    lacking = [
        f"{module}.{symbol}"
        for symbol, module in APEX_SYMBOLS.items()
        if not hasattr(import_or_none(module), symbol)
    ]
    if lacking:
        found = (
            f"lacks {', '.join(lacking)}: `pip install apex` brings another package of that name"
        )
        remedy = "pip uninstall apex, then build NVIDIA/apex with its CUDA extensions"
        yield Finding("apex", "optional", found, remedy)
    else:
        yield Finding("apex", "ok", ", ".join(APEX_SYMBOLS))


def check_data() -> Iterator[Finding]:
    """The folder of real data that tests and fine-tuning may use."""
    folder = os.environ.get("MAGICBERT_DATA")
    if not folder:
        found = "not set: GLUE comes from `datasets`, tests on real data are skipped"
        yield Finding("MAGICBERT_DATA", "optional", found, "export MAGICBERT_DATA=FOLDER")
    elif Path(folder).is_dir():
        yield Finding("MAGICBERT_DATA", "ok", folder)
    else:
        found = f"{folder} is not a folder"
        yield Finding("MAGICBERT_DATA", "optional", found, "export MAGICBERT_DATA=FOLDER")


def range_text(specifier: SpecifierSet) -> str:
    """Returns a range as people write it, lower end first."""
    return ",".join(sorted((str(part) for part in specifier), reverse=True))


def import_or_none(name: str) -> Any:
    """Imports a module; ``None`` if it is missing or fails to load."""
    try:
        return importlib.import_module(name)
    # A package that is half installed may fail with anything; here that is a finding.
    except Exception:
        return None


CHECKS = (
    check_python,
    check_versions,
    check_devices,
    check_building,
    check_deepspeed,
    check_kernels,
    check_apex,
    check_data,
)
