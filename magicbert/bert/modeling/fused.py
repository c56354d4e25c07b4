"""The elementwise work around an operator's matrix products, fused where the kernels run.

Every function here is one formula with two forms: plain torch, which is what it means, and the
Triton kernel of the package ``magicbert_kernels``, equal within that package's tolerances. An
exported folder needs that package as little as it needs a GPU: without it every form is plain.

Shape suffixes: ... any leading axes, I input width, O output width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import add_dropped, dropped

try:
    from magicbert_kernels.backend import resolve_backend

    HAS_KERNELS = True
except ImportError:
    HAS_KERNELS = False

Activation = Literal["none", "gelu"]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def backend_on(requested: str, device_type: str) -> str:
    """Returns ``triton`` or ``torch``: what runs on tensors of a device.

    Args:
        requested: ``auto``, ``triton`` or ``torch``, as the configuration says.
        device_type: such as ``cuda``.

    Raises:
        RuntimeError: the name is unknown, or triton was asked for and cannot run there.
    """
    if requested == "torch":
        return "torch"
    if HAS_KERNELS:
        return str(resolve_backend(requested, torch.device(device_type)))
    if requested == "auto":
        return "torch"
    raise RuntimeError(
        f"backend {requested!r} needs the package magicbert_kernels, which is not installed: "
        "set the configuration's backend to 'auto' or 'torch'"
    )


@dataclass(frozen=True)
class Call:
    """One call of an operator: where its elementwise work runs, and its dropout.

    Attributes:
        backend: ``triton`` or ``torch``.
        dropout: probability of every dropout in this call; 0 in evaluation.
    """

    backend: str
    dropout: float

    @classmethod
    def of(cls, requested: str, hidden: Tensor, dropout: nn.Dropout) -> Call:
        """Returns the call that begins with this input.

        Args:
            requested: backend, as the configuration says.
            hidden: the operator's input.
            dropout: its probability counts while the module is training.
        """
        backend = backend_on(requested, hidden.device.type)
        return cls(backend, dropout.p if dropout.training else 0.0)


def linear_gelu(
    linear: nn.Linear, input_I: Tensor, call: Call, stream: int | None = None
) -> Tensor:
    """Returns ``Dropout(gelu(W x + b))``, ``[..., O]``.

    Args:
        linear: W and b.
        input_I: x, ``[..., I]``.
        call: of the operator.
        stream: number of this dropout among those of the call; ``None`` = no dropout here.
    """
    activated_O = F.gelu(linear(input_I))
    return activated_O if stream is None else dropped(activated_O, call.dropout)


def linear_residual_norm(
    linear: nn.Linear,
    input_I: Tensor,
    residual_O: Tensor,
    norm: nn.LayerNorm,
    call: Call,
    stream: int = 0,
    activation: Activation = "none",
) -> Tensor:
    """Returns ``LN(r + Dropout(f(W x + b)))``, ``[..., O]``, the end of every operator.

    Args:
        linear: W and b.
        input_I: x, ``[..., I]``.
        residual_O: r, ``[..., O]``.
        norm: LN.
        call: of the operator.
        stream: number of this dropout among those of the call.
        activation: f.
    """
    branch_O = linear(input_I)
    if activation == "gelu":
        branch_O = F.gelu(branch_O)
    normed_O: Tensor = norm(add_dropped(residual_O, branch_O, call.dropout))
    return normed_O
