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
    from magicbert_kernels.bias_gelu import bias_gelu
    from magicbert_kernels.depthwise_convolution import depthwise_convolution
    from magicbert_kernels.philox import draw_seed
    from magicbert_kernels.residual_norm import residual_norm

    HAS_KERNELS = True
except ImportError:
    HAS_KERNELS = False

Activation = Literal["none", "gelu"]
KERNEL_TYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def runs_kernels(requested: str, values: Tensor) -> bool:
    """Returns whether these values go to the kernels; double precision never does."""
    return backend_on(requested, values.device.type) == "triton" and values.dtype in KERNEL_TYPES


@dataclass(frozen=True)
class Call:
    """One call of an operator: where its elementwise work runs, and its dropout.

    Attributes:
        is_fused: the kernels run, not plain torch.
        dropout: probability of every dropout in this call; 0 in evaluation.
        seed: of the kernels' dropout masks, int64 on the device. One for the whole call, its
            dropouts differ by their ``stream``; drawn by torch's generator, so that a call that
            gradient checkpointing repeats finds the masks that it had.
    """

    is_fused: bool
    dropout: float
    seed: Tensor | None = None

    @classmethod
    def of(cls, requested: str, hidden: Tensor, dropout: nn.Dropout) -> Call:
        """Returns the call that begins with this input.

        Args:
            requested: backend, as the configuration says.
            hidden: the operator's input.
            dropout: its probability counts while the module is training.
        """
        is_fused = runs_kernels(requested, hidden)
        probability = active_probability(dropout)
        seed = draw_seed(hidden.device) if is_fused and probability else None
        return cls(is_fused, probability, seed)


def active_probability(dropout: nn.Dropout) -> float:
    """Returns with what probability a dropout drops now."""
    return dropout.p if dropout.training else 0.0


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
    probability = 0.0 if stream is None else call.dropout
    if call.is_fused and is_plain(linear, nn.Linear) and linear.bias is not None:
        product_O = F.linear(input_I, linear.weight)
        return bias_gelu(
            product_O, linear.bias, dropout=probability, seed=call.seed, stream=stream or 0,
            backend="triton",
        )  # fmt: skip
    return dropped(F.gelu(linear(input_I)), probability)


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
    if call.is_fused and is_plain(norm, nn.LayerNorm):
        product_O, bias_O = product_and_bias(linear, input_I)
        return residual_norm(
            product_O, residual_O, norm.weight, norm.bias, epsilon=norm.eps, branch_bias=bias_O,
            activation=activation, dropout=call.dropout, seed=call.seed, stream=stream,
            backend="triton",
        )  # fmt: skip
    branch_O = linear(input_I)
    if activation == "gelu":
        branch_O = F.gelu(branch_O)
    normed_O: Tensor = norm(add_dropped(residual_O, branch_O, call.dropout))
    return normed_O


def depthwise(
    hidden_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segment_ids_BS: Tensor | None
) -> Tensor:
    """Returns the kernel's convolution within segments; padding is neither seen nor does it see."""
    convolved_BSH: Tensor = depthwise_convolution(
        hidden_BSH, weight_KH, bias_H, segment_ids_BS, backend="triton"
    )
    return convolved_BSH


def product_and_bias(linear: nn.Linear, input_I: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns ``W x`` and the bias that is still to be added; ``None`` = none."""
    if is_plain(linear, nn.Linear):
        return F.linear(input_I, linear.weight), linear.bias
    return linear(input_I), None


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Returns whether calling a layer computes what its class says and nothing else.

    Adapters and offloading wrap, replace or hook layers; such a layer is called, never read.
    """
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    is_stock = type(layer).forward is kind.forward and "forward" not in layer.__dict__
    return is_stock and not any(hooks)
