"""ZeRO stages 1 and 2, limited to the groups of the sampled path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID, DeepSpeedZeroOptimizer
from torch import Tensor

from magicbert.space import Architecture
from magicbert.training.path_sparse.groups import GroupIndex
from magicbert.training.path_sparse.offload import HostMemory
from magicbert.training.path_sparse.placement import Piece, cut_group
from magicbert.training.path_sparse.rules import UpdateRule
from magicbert.training.path_sparse.update import SparseUpdate


class PathSparseZeroOptimizer(DeepSpeedZeroOptimizer):  # type: ignore[misc]
    """DeepSpeed's partitioning, buckets and hooks; a step that follows the path.

    DeepSpeed flattens each group, gives every rank an equal partition of it, and reduces
    gradients by bucket from its backward hooks. All of that is used as it is. Replaced are the
    parts that walk over every group: they walk over the active ones. Reduced gradients always
    land in fp32 partitions (DeepSpeed's "compact" buffers), in every precision.

    Args:
        init_optimizer: the update rule, over `parameter_groups`.
        *args: passed on to DeepSpeed.
        offload: masters and moments stand in host memory and are stepped there.
        **kwargs: passed on to DeepSpeed.
    """

    def __init__(
        self, init_optimizer: UpdateRule, *args: Any, offload: bool = False, **kwargs: Any
    ) -> None:
        self.index = GroupIndex.of(init_optimizer.param_groups)
        self.active = tuple(range(len(init_optimizer.param_groups)))
        dtype = init_optimizer.param_groups[0]["params"][0].dtype
        self.host = HostMemory(dtype) if offload else None
        # An fp32 partition of the model is its own master: nothing is copied back after a step.
        self.is_master_the_weight = dtype == torch.float32 and not offload
        super().__init__(init_optimizer, *args, **kwargs)
        self.update = SparseUpdate(
            self.optimizer,
            self.clip_grad,
            self.dp_process_group,
            pieces=self.pieces,
            host=self.host,
        )

    def _link_all_hp_params(self) -> None:
        """Puts the masters where they stay, before DeepSpeed links to them."""
        rank = dist.get_rank(group=self.dp_process_group)
        for number, master in enumerate(self.masters):
            if self.host is not None:
                master.data = self.host.pinned(master)
            elif self.is_master_the_weight:
                master.data = self.parallel_partitioned_bit16_groups[number][rank]
        super()._link_all_hp_params()

    def begin_step(self, architecture: Architecture) -> None:
        """Names the path of the coming step; every rank must name the same."""
        self.active = self.index.of_path(architecture)

    @property
    def masters(self) -> list[Tensor]:
        """This rank's fp32 partition of each group."""
        partitions: list[Tensor] = self.single_partition_of_fp32_groups
        return partitions

    def pieces(self, group_number: int) -> tuple[Piece, ...]:
        """Returns where a group's parameters stand in this rank's partition.

        DeepSpeed may change the order of the parameters (round robin) and pads between them and
        at the end.
        """
        numbers = {id(p): number for number, p in enumerate(self.bit16_groups[group_number])}
        parameters = self.round_robin_bit16_groups[group_number]
        length = int(self.partition_size[group_number])
        begin = dist.get_rank(group=self.dp_process_group) * length
        return cut_group(
            [numbers[id(parameter)] for parameter in parameters],
            [parameter.numel() for parameter in parameters],
            self.round_robin_bit16_offsets[group_number],
            (begin, begin + length),
        )

    def _active_parameters(self) -> Iterator[tuple[int, Any]]:
        for number in self.active:
            for parameter in self.bit16_groups[number]:
                yield number, parameter

    # --- gradients -------------------------------------------------------------------------

    def _use_compact_grad_partition_buffer(self, group_idx: int) -> bool:
        # Stock DeepSpeed does so only when gradients are accumulated in another precision than
        # the model's; one way for every precision is simpler and skips a copy.
        return True

    def should_refresh_expected_hook_count(self) -> bool:
        """Skips a walk over every parameter at each backward.

        The count serves ``loss.backward()`` without the engine; here the engine runs every
        backward and its epilogue.
        """
        return False

    def reduce_gradients(self, pipeline_parallel: bool = False) -> None:
        """Stage 1: reduces the active groups' gradients at the end of accumulation."""
        for number, parameter in self._active_parameters():
            if self.get_gradient_for_reduction(parameter) is None:
                # Another rank may have a gradient here; the buckets must stay in step.
                self._fill_with_zeros(parameter)
            self.reduce_ready_partitions_and_remove_grads(parameter, number)
        self.overlapping_partition_gradients_reduce_epilogue()

    def _fill_with_zeros(self, parameter: Any) -> None:
        if self.use_grad_accum_attribute:
            dtype = self.gradient_accumulation_dtype
            parameter.grad_accum = torch.zeros_like(parameter, dtype=dtype)
        else:
            parameter.grad = torch.zeros_like(parameter)

    def independent_gradient_partition_epilogue(self) -> None:
        """Reduces what is left in the buckets and frees the gradients of this backward."""
        self.reduce_ipg_grads()
        for _, parameter in self._active_parameters():
            self.params_already_reduced[self.get_param_id(parameter)] = False
        self._release_ipg_buffers()
        self._clear_param_grad_only()
        self._epilogue_ran_this_backward = True

    def _clear_param_grad_only(self) -> None:
        for _, parameter in self._active_parameters():
            parameter.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of the active groups; no other group has any."""
        for _, parameter in self._active_parameters():
            parameter.grad = None
            parameter.grad_accum = None

    def clear_backward_seen_flag(self) -> None:
        """Prepares the hooks for the next micro-batch."""
        if self._epilogue_ran_this_backward:
            for _, parameter in self._active_parameters():
                parameter.grad_accum = None
        self._backward_hook_state.reset_for_new_step()

    # --- the step --------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates the active partitions and gathers their weights."""
        self.micro_step_id = INITIAL_MICRO_STEP_ID
        groups = [self.optimizer.param_groups[number] for number in self.active]
        gradients = [
            self._get_compact_grad_partition_buffer(number).flat_partition for number in self.active
        ]
        self.averaged_gradients.clear()
        norm = self.update.step(groups, gradients, self.loss_scale)
        self._global_grad_norm = norm
        # Only a dynamic loss scale has to be told on the host, which waits for the device.
        self.overflow = bool(self.dynamic_loss_scale and not torch.isfinite(norm))
        self._update_scale(self.overflow)
        self.publish_weights(self.update.moved(self.active))

    def publish_weights(self, numbers: tuple[int, ...]) -> None:
        """Brings the model's weights in line with the masters of all ranks."""
        rank = dist.get_rank(group=self.dp_process_group)
        mine = [self.parallel_partitioned_bit16_groups[number][rank] for number in numbers]
        masters = [self.masters[number].detach() for number in numbers]
        if self.host is not None:
            self.host.send_weights(masters, mine)
        elif not self.is_master_the_weight:
            torch._foreach_copy_(mine, masters)
        if dist.get_world_size(group=self.dp_process_group) > 1:
            self._gather_weights(numbers, rank)

    def _gather_weights(self, numbers: tuple[int, ...], rank: int) -> None:
        """Fetches the other ranks' partitions of some groups in one message."""
        partitions = [self.parallel_partitioned_bit16_groups[number] for number in numbers]
        mine = [partition[rank] for partition in partitions]
        num_ranks = dist.get_world_size(group=self.dp_process_group)
        sizes = [tensor.numel() for tensor in mine]
        message = torch.cat(mine)
        gathered = list(message.new_empty(num_ranks * message.numel()).chunk(num_ranks))
        dist.all_gather(gathered, message, group=self.dp_process_group)
        for other, chunk in enumerate(gathered):
            if other != rank:
                target = [partition[other] for partition in partitions]
                torch._foreach_copy_(target, list(torch.split(chunk, sizes)))

    @torch.no_grad()
    def gather_masters(self) -> dict[Any, Tensor]:
        """Returns the fp32 weights of every parameter, on every rank."""
        num_ranks = dist.get_world_size(group=self.dp_process_group)
        weights: dict[Any, Tensor] = {}
        for number, partition in enumerate(self.masters):
            master = partition.detach().to(get_accelerator().current_device_name())
            flat = list(master.new_empty(num_ranks * master.numel()).chunk(num_ranks))
            dist.all_gather(flat, master, group=self.dp_process_group)
            whole = torch.cat(flat)
            offsets = self.round_robin_bit16_offsets[number]
            for parameter, offset in zip(
                self.round_robin_bit16_groups[number], offsets, strict=True
            ):
                part = whole[offset : offset + parameter.numel()]
                weights[parameter] = part.view_as(parameter)
        return weights
