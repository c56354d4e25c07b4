"""DeepSpeed's partitioning of weights without its tracing: hooks follow the path instead."""

from __future__ import annotations

from typing import Any

from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
from torch import nn

MARKS_OF_MODULES = ("_external_params", "ds_external_parameters", "all_parameters")


class PartitionedWeights(DeepSpeedZeRoOffload):  # type: ignore[misc]
    """``DeepSpeedZeRoOffload`` that partitions the weights and hooks no module.

    Stock DeepSpeed hooks every submodule, wraps its table of parameters and records a trace. The
    path says all of that, so modules keep their own tables and are left to `PathGatherer`.

    Args:
        module: what the engine runs.
        **kwargs: passed on to DeepSpeed.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        self._marks_before = {p: set(vars(p)) for p in module.parameters()}
        super().__init__(module=module, **kwargs)
        for part in module.modules():
            part._parameters = vars(part).pop("_original_parameters")

    def setup_zero_stage3_hooks(self) -> None:
        """Hooks nothing."""

    def _remove_module_hooks(self) -> None:
        """There is none."""

    def unmark(self) -> None:
        """Takes DeepSpeed's attributes off modules and parameters: they are torch's own again."""
        for part in self.module.modules():
            for name in MARKS_OF_MODULES:
                vars(part).pop(name, None)
        self.module.__dict__.pop("ds_inflight_param_registry", None)
        for parameter, before in self._marks_before.items():
            for name in set(vars(parameter)) - before:
                delattr(parameter, name)
