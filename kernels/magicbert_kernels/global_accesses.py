"""Which tensor each load and store of compiled code belongs to, and how wide it is.

Read from PTX, NVIDIA's assembly with unlimited registers. An address is computed from the kernel's
parameters, so the set of pointers that a register was computed from names its tensor.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

# Number of instructions by bits per thread.
Widths: TypeAlias = Mapping[int, int]

PARAMETER = re.compile(r"\w+_param_(\d+)\b")
REGISTER = re.compile(r"%rd?\d+")  # integers of 32 and 64 bits; no other register holds addresses
# Optional predicate, then the operation with its modifiers, then the operands.
INSTRUCTION = re.compile(r"^(?:@!?%p\d+\s+)?([a-z][\w.:]*)\s+(.*?);")
ADDRESS = re.compile(r"\[\s*(%\w+)")
ELEMENT_BITS = re.compile(r"\.[bfsu](\d+)$")
VECTOR = re.compile(r"\.v(\d)\.")
COPIED_BYTES = re.compile(r"\]\s*,\s*(0x[0-9a-f]+|\d+)")
ASYNCHRONOUS_COPY = ("cp.async.ca.", "cp.async.cg.")


def global_accesses(
    ptx: str, arguments: Sequence[tuple[str, str]]
) -> tuple[dict[str, Widths], dict[str, Widths]]:
    """Returns loads and stores of global memory by tensor and width.

    Where an address is chosen between tensors while the kernel runs, each of them is named.

    Args:
        ptx: the assembly of one kernel.
        arguments: name and type of each of its parameters in order; pointers start with ``*``,
            and the pointers of a tuple share its name.

    Raises:
        ValueError: an address comes from none of them.
    """
    instructions = list(read_instructions(ptx))
    pointers = {i: name for i, (name, kind) in enumerate(arguments) if kind.startswith("*")}
    origins = trace_origins(instructions, pointers)
    loads: dict[str, Counter[int]] = defaultdict(Counter)
    stores: dict[str, Counter[int]] = defaultdict(Counter)
    for operation, operands in instructions:
        if not is_global_access(operation):
            continue
        tensors = origins[global_address(operation, operands)]
        if not tensors:
            raise ValueError(f"{operation} {operands}: the address comes from no tensor")
        found = stores if operation.startswith("st.") else loads
        for tensor in tensors:
            found[tensor][access_bits(operation, operands)] += 1
    return freeze(loads), freeze(stores)


def read_instructions(ptx: str) -> Iterator[tuple[str, str]]:
    """Yields operation and operands of every instruction, those of inline assembly among them."""
    for line in ptx.splitlines():
        # One line of inline assembly may hold a block in braces.
        for part in re.findall(r"[^;]+;", line.split("//")[0].strip().lstrip("{").lstrip()):
            match = INSTRUCTION.match(part.strip())
            if match:
                yield match.group(1), match.group(2)


def trace_origins(
    instructions: Sequence[tuple[str, str]], pointers: Mapping[int, str]
) -> dict[str, set[str]]:
    """Returns for each register the tensors whose addresses it was computed from.

    A register may be written in several places (branches that meet), hence rounds until nothing
    is added. What a load of memory brings is data, not an address.
    """
    origins: dict[str, set[str]] = defaultdict(set)
    flows = []
    for operation, operands in instructions:
        target = REGISTER.match(operands)
        if target is None or is_memory_data(operation):
            continue
        sources = set(REGISTER.findall(operands[target.end() :]))
        parameters = {int(number) for number in PARAMETER.findall(operands)}
        origins[target.group()] |= {pointers[n] for n in parameters if n in pointers}
        flows.append((target.group(), sources))
    is_growing = True
    while is_growing:
        is_growing = False
        for target_name, sources in flows:
            before = len(origins[target_name])
            for source in sources:
                origins[target_name] |= origins[source]
            is_growing |= len(origins[target_name]) > before
    return origins


def is_memory_data(operation: str) -> bool:
    """Tells whether the target of an operation is read from memory other than the parameters."""
    return operation.startswith(("ld.", "atom.")) and not operation.startswith("ld.param")


def is_global_access(operation: str) -> bool:
    """Tells whether an operation reads or writes the GPU's memory."""
    return operation.startswith(("ld.global", "st.global", *ASYNCHRONOUS_COPY))


def global_address(operation: str, operands: str) -> str:
    """Returns the register with the address; an asynchronous copy names shared memory first."""
    return str(ADDRESS.findall(operands)[operation.startswith(ASYNCHRONOUS_COPY)])


def access_bits(operation: str, operands: str) -> int:
    """Returns the bits that one thread moves with an instruction."""
    copied = COPIED_BYTES.search(operands)
    if operation.startswith(ASYNCHRONOUS_COPY) and copied:
        return 8 * int(copied.group(1), 0)
    vector = VECTOR.search(operation)
    element = ELEMENT_BITS.search(operation)
    if element is None:
        raise ValueError(f"{operation} names no width")
    return int(element.group(1)) * (int(vector.group(1)) if vector else 1)


def freeze(counts: Mapping[str, Counter[int]]) -> dict[str, Widths]:
    """Returns counts sorted by tensor and width."""
    return {name: dict(sorted(counts[name].items())) for name in sorted(counts)}
