"""Counts what Triton kernels do to memory, exactly: the interpreter sees every address.

Use where TRITON_INTERPRET=1 was set before triton was imported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from types import TracebackType
from typing import Any

import numpy as np
from torch.library import CustomOpDef
from torch.utils._python_dispatch import _disable_current_modes
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder

from magicbert.bench.accounting import Accounting

try:
    from torch._library.custom_ops import OPDEFS
except ImportError:  # pragma: no cover: another torch keeps them elsewhere
    OPDEFS: dict[str, CustomOpDef] = {}  # type: ignore[no-redef]


class KernelTraffic:
    """Counts launches and bytes while it is entered.

    Attributes:
        launches: number of launches by name of the kernel.
        bytes_read: by all loads; an element that two programs load counts twice.
        bytes_written: by all stores.
        distinct_bytes: read or written at least once in a launch, summed over launches: what
            passes between memory and a cache that holds everything else.
    """

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.bytes_read = self.bytes_written = self.distinct_bytes = 0
        self._seen: dict[int, list[np.ndarray]] = {}
        self._former: dict[tuple[type, str], Any] = {}

    def __enter__(self) -> KernelTraffic:
        self._wrap(InterpretedFunction, "run", self._run)
        self._wrap(InterpreterBuilder, "create_masked_load", self._load)
        self._wrap(InterpreterBuilder, "create_masked_store", self._store)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        for (owner, name), former in self._former.items():
            setattr(owner, name, former)

    def _wrap(self, owner: type, name: str, counting: Any) -> None:
        former = getattr(owner, name)
        self._former[(owner, name)] = former
        setattr(owner, name, lambda *args, **kwargs: counting(former, *args, **kwargs))

    def _run(self, former: Any, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        self.launches[kernel.fn.__name__] += 1
        self._seen = defaultdict(list)
        # The interpreter's own copies of the arguments are no work of the kernel.
        with _disable_current_modes():
            result = former(kernel, *args, **kwargs)
        for size, addresses in self._seen.items():
            self.distinct_bytes += size * len(np.unique(np.concatenate(addresses)))
        return result

    def _load(
        self, former: Any, builder: Any, pointers: Any, mask: Any, *args: Any, **kw: Any
    ) -> Any:
        self.bytes_read += self._note(pointers, mask)
        return former(builder, pointers, mask, *args, **kw)

    def _store(
        self, former: Any, builder: Any, pointers: Any, value: Any, mask: Any, *args: Any, **kw: Any
    ) -> Any:
        self.bytes_written += self._note(pointers, mask)
        return former(builder, pointers, value, mask, *args, **kw)

    def _note(self, pointers: Any, mask: Any) -> int:
        """Returns the bytes of one access and remembers which they were."""
        size = pointers.get_element_ty().primitive_bitwidth // 8
        chosen = np.broadcast_to(mask.data, pointers.data.shape).astype(bool)
        addresses = np.asarray(pointers.data)[chosen].reshape(-1)
        self._seen[size].append(addresses)
        return len(addresses) * size


class InnerAccounting(Accounting):
    """Counts torch's operators inside our own ones too, which hide them otherwise.

    A launch of a kernel is no operator: `KernelTraffic` counts it.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs an operator; goes into one of ours."""
        own = OPDEFS.get(func._schema.name)
        if own is not None and func.namespace == "magicbert":
            with self:
                return own._init_fn(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)
