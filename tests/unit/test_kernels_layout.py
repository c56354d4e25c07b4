"""The kernels' source root must not shadow the Hugging Face package called ``kernels``."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import transformers.utils.import_utils as versions

ROOT = Path(__file__).parents[2]
# Stands in for the real package: every name exists and decorates nothing.
STUB = """
__version__ = "{version}"


class Anything:
    def __init__(self, *arguments, **options):
        pass

    def __call__(self, decorated, *arguments, **options):
        return decorated


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything
"""
PROGRAM = """
from transformers import BertConfig, BertForMaskedLM
import kernels, magicbert_kernels
print(kernels.__file__)
BertForMaskedLM(BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, vocab_size=9))
"""


def test_the_source_root_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "tests" / "kernels").exists()
    assert (ROOT / "kernels" / "magicbert_kernels" / "__init__.py").is_file()


def test_bert_imports_from_the_root_beside_the_package_called_kernels(tmp_path):
    package = tmp_path / "kernels"
    package.mkdir()
    version = getattr(versions, "KERNELS_MIN_VERSION", "0.13.0")
    (package / "__init__.py").write_text(STUB.format(version=version))
    information = tmp_path / f"kernels-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n"
    )
    path = os.pathsep.join([str(ROOT / "kernels"), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],  # -c puts the working directory first on the path
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == str(package / "__init__.py")


def test_kernels_import_torch_and_triton_alone():
    standard = sys.stdlib_module_names | {"torch", "triton", "magicbert_kernels"}
    for file in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= standard, file


def test_triton_is_not_imported_until_a_kernel_runs():
    program = (
        "import sys, torch; from magicbert_kernels.alignment_loss import alignment_sums;"
        "before = {n for n in sys.modules if n.startswith('magicbert_kernels')};"
        "alignment_sums([torch.ones(2, 3)], [torch.zeros(2, 3)], None, 'torch');"
        "print(any(n.endswith(('.kernel', '.autograd')) for n in before | set(sys.modules)"
        " if n.startswith('magicbert_kernels')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT / "kernels")},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
