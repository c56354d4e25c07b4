"""ZeRO stage 3, limited to the groups of the sampled path."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import Any

import torch
from deepspeed import comm as dist
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from torch import Tensor, nn

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.supernet import Supernet
from magicbert.training.path_sparse.gathering import PathGatherer
from magicbert.training.path_sparse.gathering_unit import build_units
from magicbert.training.path_sparse.groups import SHARED, GroupIndex, operator_key
from magicbert.training.path_sparse.offload import HostMemory
from magicbert.training.path_sparse.partitioned_gradients import GradientScatter
from magicbert.training.path_sparse.partitioned_weights import PartitionedWeights
from magicbert.training.path_sparse.placement import Piece
from magicbert.training.path_sparse.rules import UpdateRule
from magicbert.training.path_sparse.update import SparseUpdate


class PathSparsePartitionedOptimizer(DeepSpeedZeroOptimizer_Stage3):  # type: ignore[misc]
    """DeepSpeed's partitions of weights and masters; everything that moves follows the path.

    Each rank holds an equal part of every parameter, and fp32 masters and moments of that part,
    as stock stage 3 does (masters and moments in host memory with ``offload_optimizer``). Weights
    are gathered by `PathGatherer`, gradients reduced by `GradientScatter`.

    Args:
        module: what the engine runs; holds one `Supernet`.
        init_optimizer: the update rule, over `parameter_groups`.
        *args: passed on to DeepSpeed.
        **kwargs: passed on to DeepSpeed.

    Raises:
        UserError: a parameter is frozen.
    """

    def __init__(
        self, module: nn.Module, init_optimizer: UpdateRule, *args: Any, **kwargs: Any
    ) -> None:
        check_all_trained(module)
        self.index = GroupIndex.of(init_optimizer.param_groups)
        self.active = tuple(range(len(init_optimizer.param_groups)))
        super().__init__(module, init_optimizer, *args, **kwargs)
        self.host = HostMemory(self.dtype) if self.offload_optimizer else None
        # An fp32 part of the weights is its own master: nothing is copied back after a step.
        self.is_master_the_weight = self.dtype == torch.float32 and self.host is None
        self._place_masters()
        for group, master in zip(self.optimizer.param_groups, self.masters, strict=True):
            group["params"] = [master]
        num_ranks = dist.get_world_size(group=self.dp_process_group)
        parts = [part.detach() for part in self.fp16_partitioned_groups_flat]
        self.units = build_units(self.index, self.fp16_groups, parts, num_ranks)
        self.gatherer = PathGatherer(
            self.units,
            self.dp_process_group,
            self.prefetch_elements,
            kwargs["max_live_parameters"],
        )
        self.scatter = GradientScatter(
            self.dp_process_group, self.reduce_bucket_size, self.communication_data_type
        )
        self.update = SparseUpdate(
            self.optimizer,
            self.clip_grad,
            self.dp_process_group,
            pieces=self.pieces,
            host=self.host,
        )
        self.positions: dict[str, int] = {}
        self._not_reduced = 0
        self._path_hooks = self._hook_supernet()

    # --- what DeepSpeed's constructor builds --------------------------------------------------

    def initialize_ds_offload(self, module: nn.Module, **kwargs: Any) -> PartitionedWeights:
        """Partitions the weights."""
        return PartitionedWeights(module, **kwargs)

    def _setup_for_real_optimizer(self) -> None:
        # No gradient buffers of the whole model: see GradientScatter.
        self._create_fp32_partitions()

    def _place_masters(self) -> None:
        for number, part in enumerate(self.fp16_partitioned_groups_flat):
            if self.host is not None:
                master = self.host.pinned(self.masters[number])
            elif self.is_master_the_weight:
                master = part
            else:
                continue
            self.masters[number] = master.requires_grad_()

    def create_reduce_and_remove_grad_hooks(self) -> None:
        """Hooks no parameter: gradients are taken operator by operator."""

    @property
    def masters(self) -> list[Tensor]:
        """This rank's fp32 part of each group."""
        masters: list[Tensor] = self.fp32_partitioned_groups_flat
        return masters

    def pieces(self, group_number: int) -> tuple[Piece, ...]:
        """Returns where a group's parameters stand in this rank's part of it."""
        rank = dist.get_rank(group=self.dp_process_group)
        group = self.fp16_groups[group_number]
        sizes = [int(parameter.ds_tensor.ds_numel) for parameter in group]
        offsets = accumulate(sizes, initial=0)
        return tuple(
            Piece(number, rank * size, min(size, parameter.ds_numel - rank * size), offset)
            for number, (parameter, size, offset) in enumerate(
                zip(group, sizes, offsets, strict=False)
            )
            if rank * size < parameter.ds_numel
        )

    # --- hooks --------------------------------------------------------------------------------

    def _hook_supernet(self) -> list[Any]:
        """Ties gathering and reduction to the operators' forwards and backwards."""
        supernet = find_supernet(self.module)
        roots = dict.fromkeys((self.module, supernet))
        hooks = [root.register_forward_pre_hook(self._before_all) for root in roots]
        for layer, names in enumerate(supernet.space.layers):
            for name in names:
                owner, operator = operator_key(layer, name), supernet.operator(layer, name)
                if owner in self.units:
                    before, after = partial(self._before, owner), partial(self._after, owner)
                    hooks.append(operator.register_forward_pre_hook(before))
                    hooks.append(operator.register_forward_hook(after))
        return hooks

    def _before_all(self, module: nn.Module, inputs: Any) -> None:
        self.gatherer.enter_shared()

    def _before(self, owner: str, operator: nn.Module, inputs: Any) -> None:
        self.gatherer.enter(owner)

    def _after(self, owner: str, operator: nn.Module, inputs: Any, output: Tensor) -> None:
        position = self.positions.get(owner)
        if position is not None and torch.is_grad_enabled() and output.requires_grad:
            hook = partial(self._before_backward, position)
            output.register_hook(hook)  # type: ignore[no-untyped-call]
        self.gatherer.leave(owner)

    def _before_backward(self, position: int, gradient: Tensor) -> None:
        """Runs when the gradient of an operator's output is there."""
        self._reduce_behind(position)
        self.gatherer.before_backward(position)

    # --- a step -------------------------------------------------------------------------------

    def begin_step(self, architecture: Architecture, anchor: Architecture | None = None) -> None:
        """Names the path of the coming step and starts gathering its weights.

        Args:
            architecture: the path; every rank must name the same.
            anchor: the path it is aligned to; its weights are gathered for the forward.
        """
        self.active = self.index.of_path(architecture)
        self.scatter.clear()
        self.gatherer.begin_step(architecture, anchor)
        path = self.gatherer.path
        self.positions = {unit.owner: position for position, unit in enumerate(path)}
        self._not_reduced = len(path)

    def _reduce_behind(self, position: int) -> None:
        """Queues the gradients of the path's operators behind a position, last one first.

        The order is the path's, never that of the events: ranks whose backward differs still send
        the same messages.
        """
        while self._not_reduced > position + 1:
            self._not_reduced -= 1
            self.scatter.add(self.gatherer.path[self._not_reduced])

    def independent_gradient_partition_epilogue(self) -> None:
        """Reduces what is left of a micro-batch's gradients."""
        path = self.gatherer.path
        self._reduce_behind(-1)
        if SHARED in self.units:
            self.scatter.add(self.units[SHARED])
        self.scatter.send()
        self.scatter.receive()
        self.gatherer.end_backward()
        late = [unit.owner for unit in path if any(p.grad is not None for p in unit.parameters)]
        if late:
            raise RuntimeError(f"gradients of {late} arrived after they were reduced")
        self._not_reduced = len(path)
        self._epilogue_ran_this_backward = True

    def backward_prologue(self) -> None:
        """Nothing is left to prepare."""

    def backward_epilogue(self, **_: Any) -> None:
        """Nothing is left to release."""

    def should_refresh_expected_hook_count(self) -> bool:
        """Skips a walk over every parameter at each backward."""
        return False

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates the active parts; the next step gathers what it needs of them."""
        self.micro_step_id, self._epilogue_ran_this_backward = 0, False
        groups = [self.optimizer.param_groups[number] for number in self.active]
        gradients = [self.scatter.parts[number] for number in self.active]
        norm = self.update.step(groups, gradients, self.loss_scale)
        self.scatter.clear()
        self.gatherer.release_all()
        self.positions = {}
        self._global_grad_norm = norm
        # Only a dynamic loss scale has to be told on the host, which waits for the device.
        self.overflow = bool(self.dynamic_loss_scale and not torch.isfinite(norm))
        self._update_scale(self.overflow)
        self.publish_weights(self.update.moved(self.active))

    @torch.no_grad()
    def publish_weights(self, numbers: tuple[int, ...]) -> None:
        """Copies masters into this rank's parts of the weights."""
        parts = [self.fp16_partitioned_groups_flat[number].detach() for number in numbers]
        masters = [self.masters[number].detach() for number in numbers]
        if self.host is not None:
            self.host.send_weights(masters, parts)
        elif not self.is_master_the_weight:
            torch._foreach_copy_(parts, masters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Does nothing: gradients leave the parameters when they are reduced."""

    # --- the end of training ------------------------------------------------------------------

    @torch.no_grad()
    def gather_masters(self) -> dict[Any, Tensor]:
        """Returns the fp32 weights of every parameter, on every rank."""
        num_ranks = dist.get_world_size(group=self.dp_process_group)
        weights: dict[Any, Tensor] = {}
        for group, master in zip(self.fp16_groups, self.masters, strict=True):
            own = master.detach().to(self.lp_param_buffer.device)
            rows = own.new_empty((num_ranks, own.numel()))
            dist.all_gather_into_tensor(rows.view(-1), own, group=self.dp_process_group)
            sizes = [int(parameter.ds_tensor.ds_numel) for parameter in group]
            for parameter, part in zip(group, torch.split(rows, sizes, dim=1), strict=True):
                whole = part.reshape(-1)[: parameter.ds_numel]
                weights[parameter] = whole.view(parameter.ds_shape).clone()
        return weights

    def dismantle(self) -> None:
        """Makes the module an ordinary one of fp32 weights, without any of DeepSpeed's hooks."""
        weights = self.gather_masters()
        self._unhook()
        self.parameter_offload.unmark()
        for parameter, value in weights.items():
            parameter.data = value

    def destroy(self) -> None:
        """Removes every hook."""
        self._unhook()
        super().destroy()

    def _unhook(self) -> None:
        for hook in self._path_hooks:
            hook.remove()


def find_supernet(module: nn.Module) -> Supernet:
    """Returns the supernet inside the module that the engine runs."""
    return next(part for part in module.modules() if isinstance(part, Supernet))


def check_all_trained(module: nn.Module) -> None:
    """Refuses frozen parameters: no group would gather them.

    Raises:
        UserError: a parameter needs no gradient.
    """
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    if frozen:
        raise UserError(
            f"ZeRO stage 3 here trains every parameter, but {frozen[0]} is frozen; "
            "use training.zero_stage 1 or 2"
        )
