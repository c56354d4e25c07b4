"""Every kernel compiled ahead of time for GPUs that are not there, held to what it may use.

Zero spills, no local memory, at least 128 bits a load and a store of every streamed tensor, shared
memory within the limit.
"""

from __future__ import annotations

import os
from collections import Counter

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

FAST = 90
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
            for problem in broken_rules(compilation, resources, architecture)
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
