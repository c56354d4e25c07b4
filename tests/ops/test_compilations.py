"""Every kernel compiled ahead of time for GPUs that are not there, held to what it may use.

Zero spills, no local memory, at least 128 bits a load and a store of every streamed tensor, shared
memory within the limit; registers and shared memory within the committed bounds.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from magicbert_kernels.ahead_of_time import (
    ARCHITECTURES,
    DTYPES,
    SHARED_LIMITS,
    Compilation,
    Resources,
    compilations_of,
    compile_for,
    kernel_packages,
)
from ops.bound_compilations import minor_version, type_name

FAST = 90
BOUNDS = Path(__file__).with_name("compilation_bounds.json")
WRITER = "python tests/ops/bound_compilations.py"
WIDE = 128


def architectures() -> list:
    return [pytest.param(a, marks=() if a == FAST else pytest.mark.slow) for a in ARCHITECTURES]


@pytest.mark.parametrize("architecture", architectures())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("package", kernel_packages())
def test_resources_are_within_bounds(package, dtype, architecture):
    found = compilations_of(package, dtype)
    assert found
    problems = []
    for compilation in found:
        resources = compile_for(compilation, architecture)
        problems += [
            f"{compilation.kernel}: {problem}"
            for problem in (
                *broken_rules(compilation, resources, architecture),
                *broken_bounds(compilation, resources, dtype),
            )
        ]
    assert not problems, "\n".join(problems)


def broken_rules(compilation: Compilation, resources: Resources, architecture: int) -> list[str]:
    """Returns what holds for every kernel under every Triton, where it does not."""
    problems = []
    if resources.spill_bytes or resources.stack_bytes:
        problems.append(f"{resources.spill_bytes} B spilled, {resources.stack_bytes} B stack")
    if resources.shared_bytes > SHARED_LIMITS[architecture]:
        problems.append(f"{resources.shared_bytes} B of shared memory")
    for tensor in compilation.streamed:
        counts = Counter(resources.load_bits.get(tensor, {}))
        counts.update(resources.store_bits.get(tensor, {}))
        num_narrow = sum(number for bits, number in counts.items() if bits < WIDE)
        # One element may be picked out, such as the logit of a label.
        if num_narrow > 1 or num_narrow == counts.total():
            problems.append(f"{tensor} is read and written by {dict(counts)} bits")
    return problems


def broken_bounds(compilation: Compilation, resources: Resources, dtype: torch.dtype) -> list[str]:
    """Returns which committed bounds of the installed Triton do not hold; others have none."""
    known = json.loads(BOUNDS.read_text())
    if minor_version() not in known:
        return []
    bounds = known[minor_version()].get(compilation.kernel, {}).get(type_name(dtype))
    if bounds is None:
        return [f"has no bounds: run {WRITER}"]
    registers, shared_bytes = bounds
    problems = []
    if resources.registers > registers:
        problems.append(f"{resources.registers} registers, bound {registers}")
    if resources.shared_bytes > shared_bytes:
        problems.append(f"{resources.shared_bytes} B of shared memory, bound {shared_bytes}")
    return problems


def test_bounds_are_there_for_every_kernel_and_for_no_other():
    """Whichever Triton wrote them: a kernel without bounds is not held to any."""
    names = {c.kernel for p in kernel_packages() for c in compilations_of(p, torch.bfloat16)}
    known = json.loads(BOUNDS.read_text())
    versions = [version for version in known if version != "format"]
    assert versions
    for version in versions:
        assert set(known[version]) == names, f"Triton {version}: run {WRITER} under it"


def test_more_than_the_bound_is_seen():
    (compilation, *_) = compilations_of(kernel_packages()[0], torch.bfloat16)
    resources = compile_for(compilation, FAST)
    assert broken_bounds(compilation, resources, torch.bfloat16) == []
    greedy = dataclasses.replace(resources, registers=256, shared_bytes=1 << 20)
    is_bounded = minor_version() in json.loads(BOUNDS.read_text())
    assert len(broken_bounds(compilation, greedy, torch.bfloat16)) == 2 * is_bounded


def test_kernel_names_are_unique():
    names = [c.kernel for p in kernel_packages() for c in compilations_of(p, torch.bfloat16)]
    assert len(names) == len(set(names))


@triton.jit
def copy_kernel(source, target, choice, TILE: tl.constexpr):
    """Copies a tile from one of two tensors, chosen while it runs."""
    offsets = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    chosen = source[0]
    if tl.load(choice) == 1:
        chosen = source[1]
    tl.store(target + offsets, tl.load(chosen + offsets))


@triton.jit
def gather_kernel(indices, source, target, TILE: tl.constexpr):
    """Reads where another tensor says."""
    offsets = tl.arange(0, TILE)
    places = tl.load(indices + offsets)
    tl.store(target + offsets, tl.load(source + places))


@triton.jit
def hoarding_kernel(source, target, NUM_TILES: tl.constexpr, TILE: tl.constexpr):
    """Keeps more numbers per thread than there are registers."""
    offsets = tl.arange(0, NUM_TILES)[:, None] * TILE + tl.arange(0, TILE)[None, :]
    values = tl.load(source + offsets)
    tl.store(target + offsets, values - tl.sum(values, axis=0)[None, :])


def copy_compilation(divisible: tuple[str, ...]) -> Compilation:
    return Compilation(
        kernel="copy",
        function=copy_kernel,
        signature={"source": ("*bf16", "*bf16"), "target": "*bf16", "choice": "*i32"},
        constexprs={"TILE": 1024},
        num_warps=4,
        divisible=divisible,
        streamed=("source", "target"),
    )


def test_aligned_pointers_give_wide_loads_and_others_do_not():
    wide = compile_for(copy_compilation(("source", "target", "choice")), FAST)
    assert wide.load_bits == {"choice": {32: 1}, "source": {128: 1}}
    assert wide.store_bits == {"target": {128: 1}}
    narrow = copy_compilation(("choice",))
    resources = compile_for(narrow, FAST)
    assert set(resources.load_bits["source"]) == {16}
    assert len(broken_rules(narrow, resources, FAST)) == 2


def test_an_address_read_from_memory_belongs_to_the_tensor_it_points_into():
    gather = Compilation(
        kernel="gather",
        function=gather_kernel,
        signature={"indices": "*i64", "source": "*fp32", "target": "*fp32"},
        constexprs={"TILE": 512},
        num_warps=4,
        divisible=("indices", "source", "target"),
        streamed=(),
    )
    resources = compile_for(gather, FAST)
    assert set(resources.load_bits["indices"]) == {128}
    assert set(resources.load_bits["source"]) == {32}
    assert set(resources.store_bits) == {"target"}


def test_spills_are_seen():
    hoarder = Compilation(
        kernel="hoarder",
        function=hoarding_kernel,
        signature={"source": "*fp32", "target": "*fp32"},
        constexprs={"NUM_TILES": 64, "TILE": 128},
        num_warps=1,
        divisible=("source", "target"),
        streamed=(),
    )
    resources = compile_for(hoarder, FAST)
    assert resources.spill_bytes > 0
    assert resources.stack_bytes > 0
    assert any("spilled" in problem for problem in broken_rules(hoarder, resources, FAST))
