"""The Triton alignment sums as operators of PyTorch, differentiable in the outputs.

The forward writes the gradients for an upstream gradient that the caller knows beforehand, while
it holds both inputs in registers: 3 passes over the blocks in all. The backward hands them out; on
the device, it multiplies them where the upstream gradient turns out to be another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from magicbert_kernels.alignment_loss.kernel import launch_forward, launch_rescale, num_programs


@torch.library.custom_op("magicbert::alignment_loss_sums", mutates_args=())
def sums_alone(outputs: list[Tensor], anchors: list[Tensor], valid: Tensor | None) -> Tensor:
    """Returns fp32 ``[num_blocks]``: 2 passes, for use without gradients."""
    return _launch(outputs, anchors, valid, [], 1.0)


@torch.library.custom_op("magicbert::alignment_loss_forward", mutates_args=())
def sums_and_gradients(
    outputs: list[Tensor], anchors: list[Tensor], valid: Tensor | None, expected: float
) -> tuple[Tensor, list[Tensor]]:
    """Returns the sums, and the outputs' gradients for ``expected`` as each sum's gradient."""
    gradients = [torch.empty_like(o, memory_format=torch.contiguous_format) for o in outputs]
    return _launch(outputs, anchors, valid, gradients, expected), gradients


@torch.library.custom_op("magicbert::alignment_loss_backward", mutates_args={"gradients"})
def rescale(gradients: list[Tensor], sums_gradient: Tensor, expected: float) -> None:
    """Turns gradients for ``expected`` into those for ``sums_gradient`` ``[num_blocks]``.

    A kernel looks whether the two agree and then returns at once: the host does not wait.
    """
    if gradients[0].numel():
        launch_rescale(gradients, sums_gradient.float().contiguous(), expected)


@sums_alone.register_fake
def _(outputs: list[Tensor], anchors: list[Tensor], valid: Tensor | None) -> Tensor:
    return outputs[0].new_empty(len(outputs), dtype=torch.float32)


@sums_and_gradients.register_fake
def _(
    outputs: list[Tensor], anchors: list[Tensor], valid: Tensor | None, expected: float
) -> tuple[Tensor, list[Tensor]]:
    gradients = [torch.empty_like(o, memory_format=torch.contiguous_format) for o in outputs]
    return outputs[0].new_empty(len(outputs), dtype=torch.float32), gradients


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    ctx.expected = inputs[3]
    ctx.num_blocks = len(inputs[0])
    ctx.save_for_backward(*output[1])
    ctx.mark_non_differentiable(*output[1])
    # Or the backward would be given zeros as large as the outputs in place of no gradients.
    ctx.set_materialize_grads(False)


def _hand_out_gradients(ctx: Any, sums_gradient: Tensor, _: Any) -> tuple[Any, ...]:
    # In place: a second backward through the same graph is refused by the tensors' versions.
    gradients = list(ctx.saved_tensors)
    rescale(gradients, sums_gradient, ctx.expected)
    return gradients, [None] * ctx.num_blocks, None, None


sums_and_gradients.register_autograd(_hand_out_gradients, setup_context=_keep_gradients)


def alignment_sums_triton(
    outputs: Sequence[Tensor], anchors: Sequence[Tensor], valid: Tensor | None, expected: float
) -> Tensor:
    """Returns fp32 ``[num_blocks]``; see `magicbert_kernels.alignment_loss.alignment_sums`.

    Raises:
        ValueError: the blocks are fp64, which the kernel would round.
    """
    if outputs[0].dtype == torch.float64:
        raise ValueError("the triton backend computes in fp32: use torch for fp64")
    constants = [anchor.detach() for anchor in anchors]
    if not torch.is_grad_enabled() or not any(output.requires_grad for output in outputs):
        return cast(Tensor, sums_alone(list(outputs), constants, valid))
    # The gradients for 0 could not be turned into any other.
    sums, _ = sums_and_gradients(list(outputs), constants, valid, expected or 1.0)
    return cast(Tensor, sums)


def _launch(
    outputs: Sequence[Tensor],
    anchors: Sequence[Tensor],
    valid: Tensor | None,
    gradients: Sequence[Tensor],
    factor: float,
) -> Tensor:
    num_features = outputs[0].shape[-1]
    if not outputs[0].numel():
        return outputs[0].new_zeros(len(outputs), dtype=torch.float32)
    flat_outputs, flat_anchors, flat_gradients = (
        [tensor.reshape(-1, num_features).contiguous() for tensor in tensors]
        for tensors in (outputs, anchors, gradients)
    )
    flat_valid = None if valid is None else valid.reshape(-1).contiguous()
    sizes = (len(outputs), num_programs(*flat_outputs[0].shape))
    partial_sums = torch.empty(sizes, dtype=torch.float32, device=outputs[0].device)
    launch_forward(flat_outputs, flat_anchors, flat_valid, partial_sums, flat_gradients, factor)
    return partial_sums.sum(dim=1)
