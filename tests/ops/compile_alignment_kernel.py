"""Compiles the alignment kernels ahead of time and prints how many 128-bit loads each has."""

from __future__ import annotations

import re
from typing import Any

import triton
from magicbert_kernels.alignment_loss.kernel import backward_kernel, forward_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NUM_BLOCKS = 4
BLOCKS = ("*bf16",) * NUM_BLOCKS
CONSTANTS = {"NUM_BLOCKS": NUM_BLOCKS, "HAS_VALID": True, "TILE_P": 4, "TILE_D": 1024}


def count_wide_loads(kernel: Any, own_arguments: dict[str, Any]) -> int:
    signature = {
        "outputs_KPD": BLOCKS,
        "anchors_KPD": BLOCKS,
        "valid_P": "*u8",
        **own_arguments,
        "num_positions": "i32",
        "num_features": "i32",
        **dict.fromkeys(CONSTANTS, "constexpr"),
    }
    aligned: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, (name, kind) in enumerate(signature.items()):
        if isinstance(kind, tuple):
            aligned |= {(index, i): [["tt.divisibility", 16]] for i in range(len(kind))}
        elif kind.startswith("*") or name == "num_features":
            aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=CONSTANTS, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    return len(re.findall(r"ld\.global.*v4\.b32", compiled.asm["ptx"]))


print("forward_kernel", count_wide_loads(forward_kernel, {"partial_sums_KT": "*fp32"}))
gradients = {"sums_gradient_K": "*fp32", "gradients_KPD": BLOCKS}
print("backward_kernel", count_wide_loads(backward_kernel, gradients))
