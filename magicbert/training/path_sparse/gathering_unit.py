"""The weights of one owner at ZeRO stage 3: gathered together, released together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from deepspeed import comm as dist
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import Tensor

from magicbert.training.path_sparse.groups import GroupIndex

ALIGNMENT = 16  # values; parameters begin where matrix kernels like it


class WeightUnit:
    """One operator's weights, or what all paths share.

    DeepSpeed gives every rank an equal part of each parameter and lays the parts of one owner
    side by side, so a unit is one contiguous run of the rank's flat buffer and can be gathered in
    one message. The gathered weights live in one storage that is freed and allocated again, as
    torch's FSDP does: what autograd saved of them (a transposed weight, say) then neither keeps
    them alive nor goes stale.

    With one rank the part is the whole: such a unit is always live and never copied.

    Args:
        owner: its name, such as ``layers.3.ffn``.
        groups: DeepSpeed's parameters by number of the parameter group, in the buffer's order.
        partition: this rank's part of all of them, a view of DeepSpeed's flat buffer.
        num_ranks: ranks that hold a part.
    """

    def __init__(
        self, owner: str, groups: Mapping[int, Sequence[Any]], partition: Tensor, num_ranks: int
    ) -> None:
        self.owner, self.partition, self.num_ranks = owner, partition, num_ranks
        self.parameters = tuple(p for group in groups.values() for p in group)
        self.sizes = [int(p.ds_tensor.ds_numel) for p in self.parameters]
        self.group_sizes = {
            number: sum(int(p.ds_tensor.ds_numel) for p in group)
            for number, group in groups.items()
        }
        self.is_live = self.is_whole = num_ranks == 1
        self._nothing = partition.new_empty(0)
        padded = self.sizes if self.is_whole else [self._padded(size) for size in self.sizes]
        self._storage = partition if self.is_whole else partition.new_empty(sum(padded))
        parts = torch.split(self._storage, padded)
        self._rows = [
            part[: num_ranks * size].view(num_ranks, size)
            for part, size in zip(parts, self.sizes, strict=True)
        ]
        self._views = [
            part[: p.ds_numel].view(p.ds_shape)
            for part, p in zip(parts, self.parameters, strict=True)
        ]
        if self.is_whole:
            self._attach()
        else:
            self._num_bytes = self._storage.untyped_storage().nbytes()
            self._storage.untyped_storage().resize_(0)

    def _padded(self, size: int) -> int:
        return -(-self.num_ranks * size // ALIGNMENT) * ALIGNMENT

    @property
    def numel(self) -> int:
        """Values of all ranks' parts, padding included."""
        return self.num_ranks * self.partition.numel()

    def fill(self, columns: Sequence[Tensor]) -> None:
        """Takes over gathered weights.

        Args:
            columns: each parameter's parts, ``[num_ranks, size]``.
        """
        self._storage.untyped_storage().resize_(self._num_bytes)
        torch._foreach_copy_(self._rows, list(columns))
        self._attach()
        self.is_live = True

    def _attach(self) -> None:
        for parameter, view in zip(self.parameters, self._views, strict=True):
            parameter.data = view
            parameter.ds_status = ZeroParamStatus.AVAILABLE

    def release(self) -> None:
        """Frees the gathered weights; the parameters are empty tensors then."""
        if self.is_whole or not self.is_live:
            return
        for parameter in self.parameters:
            parameter.data = self._nothing
            parameter.ds_status = ZeroParamStatus.NOT_AVAILABLE
        self._storage.untyped_storage().resize_(0)
        self.is_live = False


class GatherMessage:
    """The parts of several units on their way, in one all-gather.

    Args:
        units: none of them live.
        process_group: the ranks that hold the parts.
    """

    def __init__(self, units: Sequence[WeightUnit], process_group: object) -> None:
        self.units = tuple(units)
        sent = torch.cat([unit.partition for unit in units])
        self._received = sent.new_empty((units[0].num_ranks, sent.numel()))
        self._handle = dist.all_gather_into_tensor(
            self._received.view(-1), sent, group=process_group, async_op=True
        )

    def finish(self) -> None:
        """Waits for the message and makes its units live."""
        self._handle.wait()
        sizes = [size for unit in self.units for size in unit.sizes]
        columns = iter(torch.split(self._received, sizes, dim=1))
        for unit in self.units:
            unit.fill([next(columns) for _ in unit.sizes])


def build_units(
    index: GroupIndex,
    parameters: Sequence[Sequence[Any]],
    parts: Sequence[Tensor],
    num_ranks: int,
) -> dict[str, WeightUnit]:
    """Makes one unit of each owner's groups.

    Args:
        index: which groups belong to whom.
        parameters: DeepSpeed's parameters of each group.
        parts: this rank's flat part of each group, views of one buffer.
        num_ranks: ranks that hold a part.
    """
    units = {}
    for owner, numbers in index.by_owner.items():
        first, whole = parts[numbers[0]], sum(parts[number].numel() for number in numbers)
        if [parts[n].storage_offset() for n in numbers] != offsets_behind(first, parts, numbers):
            raise RuntimeError(f"the groups of {owner} do not lie side by side in the buffer")
        partition = first.as_strided((whole,), (1,))
        groups = {number: parameters[number] for number in numbers}
        units[owner] = WeightUnit(owner, groups, partition, num_ranks)
    return units


def offsets_behind(first: Tensor, parts: Sequence[Tensor], numbers: Sequence[int]) -> list[int]:
    """Returns where each part begins if all of them follow the first without a gap."""
    lengths = [parts[number].numel() for number in numbers[:-1]]
    return list(accumulate(lengths, initial=int(first.storage_offset())))
