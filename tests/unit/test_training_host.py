"""What training makes of a CPU: its number formats and its memory."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from magicbert.training.starting import environment, native_bf16
from magicbert.training.starting.native_bf16 import has_native_bf16

FAULTS = """
import resource, sys, torch
from magicbert.training.starting.host_memory import keep_freed_memory
keeps = keep_freed_memory() if sys.argv[1] == "keep" else True
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(6):
    faults()  # the heap grows until one of its holes is large enough
print(int(keeps), faults() * resource.getpagesize())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_not_asked_for_again():
    faulted_bytes = {}
    for way in ("keep", "as it comes"):
        command = [sys.executable, "-c", FAULTS, way]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        can_keep, faulted_bytes[way] = map(int, done.stdout.split())
        if not can_keep:
            pytest.skip("this C library has no mallopt")
    # Five tensors of 48 MB; given back each time they fault in 240 MB. A system that is short of
    # memory may take some of what is kept.
    assert faulted_bytes["as it comes"] > 200_000_000
    assert faulted_bytes["keep"] < faulted_bytes["as it comes"] / 2


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_bf16_is_native_where_the_processor_says_so(capabilities, expected, monkeypatch):
    monkeypatch.setattr(native_bf16, "cpu_capabilities", lambda: capabilities)
    assert has_native_bf16(torch.device("cpu")) is expected
    assert not has_native_bf16(torch.device("meta"))


@pytest.mark.parametrize("is_native", [False, True])
def test_bf16_trains_on_any_cpu_and_where_it_is_slow_that_is_said(is_native, monkeypatch, caplog):
    capabilities = {"avx512_bf16": is_native}
    monkeypatch.setattr(native_bf16, "cpu_capabilities", lambda: capabilities)
    if environment.accelerator().device_name() != "cpu":
        pytest.skip("there is a GPU")
    with caplog.at_level(logging.WARNING, "magicbert"):
        environment.check_precision("bf16")
        environment.check_precision("fp32")
    assert len(caplog.records) == (0 if is_native else 1)
    assert all("training.precision" in record.message for record in caplog.records)
