"""The launch table: which row decides, what a damaged file says, and that it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from magicbert_kernels import launch_table
from magicbert_kernels.launch_table import (
    FILE,
    LaunchTableError,
    launch_settings,
    read_tables,
    shipped_tables,
    trying,
    write_tables,
)

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TABLES = {
    "schema": launch_table.SCHEMA,
    "choices": {"norm": {"num_warps": [2, 4]}},
    "devices": {
        "default": {
            "norm": [
                {"max_width": 128, "settings": {"num_warps": 1}},
                {"dtype": "float32", "settings": {"num_warps": 8}},
                {"settings": {"num_warps": 4}},
            ]
        },
        "NVIDIA H200": {"norm": [{"max_width": 768, "settings": {"num_warps": 2}}]},
    },
}


@pytest.mark.parametrize(
    ("width", "dtype", "device", "num_warps"),
    [
        (64, "bfloat16", "default", 1),
        (128, "float32", "default", 1),
        (129, "float32", "default", 8),
        (129, "float16", "default", 4),
        (768, "float32", "NVIDIA H200", 2),
        (769, "float32", "NVIDIA H200", 8),
        (768, "bfloat16", "NVIDIA A100", 4),
    ],
)
def test_the_first_row_that_fits_decides_the_device_before_the_default(
    width, dtype, device, num_warps
):
    tables = read_tables(json.dumps(TABLES))
    assert tables.find("norm", width, dtype, device) == {"num_warps": num_warps}


def test_an_unknown_kernel_is_an_error():
    with pytest.raises(LaunchTableError, match="no launch settings for convolution, width 8"):
        launch_settings("convolution", 8, torch.float32, CPU)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"settings": {"num_warps": 0}}, "no number above 0"),
        ({"settings": {"num_warps": True}}, "no number above 0"),
        ({"settings": {"num_warps": 4}, "dtype": "bf16"}, "unknown dtype"),
        ({"settings": {"num_warps": 4}, "width": 4}, "unknown .*width"),
        ({"max_width": 4}, "settings"),
        ([], "cannot be read"),
    ],
)
def test_a_damaged_row_is_named(row, problem):
    content = {**TABLES, "devices": {"default": {"norm": [row]}}}
    with pytest.raises(LaunchTableError, match=problem):
        read_tables(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "other/1"}'])
def test_a_file_of_another_kind_is_an_error(text):
    with pytest.raises(LaunchTableError):
        read_tables(text)


def test_what_is_written_reads_the_same():
    tables = read_tables(json.dumps(TABLES))
    assert read_tables(write_tables(tables)) == tables


def test_the_shipped_file_is_what_the_tuner_would_write():
    assert write_tables(shipped_tables()) == FILE.read_text(encoding="utf-8")


def test_the_shipped_defaults_cover_every_width_and_type():
    tables = shipped_tables()
    for kernel, rows in tables.devices["default"].items():
        assert rows[-1].fits(1 << 30, "no such type"), f"{kernel}: the last row must fit all"
        for row in rows:
            for name, values in tables.choices.get(kernel, {}).items():
                assert row.settings[name] in values, f"{kernel}: {name} is none of its choices"
    assert set(tables.choices) <= set(tables.devices["default"])


def test_settings_on_trial_end_with_the_block():
    kernel = next(iter(shipped_tables().devices["default"]))
    before = launch_settings(kernel, 64, torch.float32, CPU)
    with trying(kernel, {"num_warps": 16}):
        with trying(kernel, {"num_warps": 32}):
            assert launch_settings(kernel, 64, torch.float32, CPU) == {"num_warps": 32}
        assert launch_settings(kernel, 64, torch.float32, CPU) == {"num_warps": 16}
    assert launch_settings(kernel, 64, torch.float32, CPU) == before


def test_the_table_is_installed_with_the_wheel(tmp_path):
    """Built from a copy, so that no build folder appears here, and read from the wheel alone."""
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("magicbert", "kernels"):
        shutil.copytree(ROOT / folder, source / folder, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('wheels'))"
    subprocess.run(
        [sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=300
    )
    (wheel,) = (source / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    kernel = next(iter(shipped_tables().devices["default"]))
    program = (
        "import torch; from magicbert_kernels import launch_table;"
        f"print(launch_table.launch_settings({kernel!r}, 64, torch.float32, torch.device('cpu')));"
        "print(launch_table.FILE)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    settings, file = done.stdout.splitlines()
    assert "num_warps" in settings
    assert Path(file).is_relative_to(unpacked)
