"""DeepSpeed's engine with the path-sparse optimizers in the place of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.engine import ZERO_OPTIMIZATION, DeepSpeedEngine
from deepspeed.utils.timer import NoopTimer
from torch import nn

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.training.path_sparse.partitioned import PathSparsePartitionedOptimizer
from magicbert.training.path_sparse.refusals import check_zero_config
from magicbert.training.path_sparse.replicated import PathSparseReplicatedOptimizer
from magicbert.training.path_sparse.rules import UpdateRule
from magicbert.training.path_sparse.sharded import PathSparseZeroOptimizer
from magicbert.training.starting.versions import check_deepspeed_version

NO_PICKLES = (
    "DeepSpeed's own checkpoints are pickles, which run whatever code they hold; they are neither "
    "written nor read. training.Resumer keeps a run's state in safetensors and JSON."
)


class PathSparseEngine(DeepSpeedEngine):  # type: ignore[misc]
    """``deepspeed.DeepSpeedEngine`` that builds a path-sparse optimizer at every ZeRO stage."""

    def begin_step(self, architecture: Architecture, anchor: Architecture | None = None) -> None:
        """Names the path of the coming step; every rank must name the same.

        Args:
            architecture: the path that is trained.
            anchor: the path it is aligned to; stage 3 gathers its weights too.
        """
        if self.is_partitioned:
            self.optimizer.begin_step(architecture, anchor)
        else:
            self.optimizer.begin_step(architecture)

    @property
    def is_partitioned(self) -> bool:
        """Whether the model's weights are partitioned over the ranks (stage 3)."""
        return isinstance(self.optimizer, PathSparsePartitionedOptimizer)

    def gathered(self, architecture: Architecture) -> AbstractContextManager[None]:
        """Keeps a path's weights whole for a block that reads them between two steps."""
        if self.is_partitioned:
            return self.optimizer.gatherer.gathered(architecture)  # type: ignore[no-any-return]
        return nullcontext()

    def _forward_prologue(self, inputs: Any, kwargs: Any) -> Any:
        # At stage 3 DeepSpeed would wrap every module's table of parameters anew.
        return None if self.is_partitioned else super()._forward_prologue(inputs, kwargs)

    def clip_fp32_gradients(self) -> None:
        """Does nothing: the optimizers clip within their step, in every precision."""

    def zero_grad(self) -> None:
        """Drops the gradients of the path; stock walks over every parameter at stage 0."""
        self.optimizer.zero_grad()

    def save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Refuses: DeepSpeed's checkpoints are pickles; see `magicbert.training.checkpoints`."""
        raise UserError(NO_PICKLES)

    def load_checkpoint(self, *_: Any, **__: Any) -> None:
        """Refuses: DeepSpeed's checkpoints are pickles; see `magicbert.training.checkpoints`."""
        raise UserError(NO_PICKLES)

    def _do_optimizer_sanity_check(self, basic_optimizer: torch.optim.Optimizer) -> str:
        # DeepSpeed would choose other wrappers for stage 0 and for bf16 summed in fp32.
        return str(ZERO_OPTIMIZATION)

    def _configure_zero_optimizer(self, optimizer: UpdateRule) -> Any:
        stage = self.zero_optimization_stage()
        loss_scale = {
            "static_loss_scale": self.loss_scale(),
            "dynamic_scaling": self.dynamic_loss_scale(),
            "dynamic_loss_args": self.dynamic_loss_scale_args(),
        }
        if stage == 0:
            clip_norm = self.gradient_clipping()
            return PathSparseReplicatedOptimizer(optimizer, clip_norm, loss_scale)
        loss_scale["dynamic_loss_scale"] = loss_scale.pop("dynamic_scaling")
        if stage == 3:
            return self._partitioned_optimizer(optimizer, loss_scale)
        return PathSparseZeroOptimizer(
            optimizer,
            self.param_names,
            offload=self.zero_cpu_offload(),
            timers=NoopTimer(),
            optimizer_params=self.optimizer_params(),
            clip_grad=self.gradient_clipping(),
            contiguous_gradients=True,
            reduce_bucket_size=self.zero_reduce_bucket_size(),
            use_multi_rank_bucket_allreduce=self.zero_multi_rank_bucket_allreduce(),
            allgather_bucket_size=self.zero_allgather_bucket_size(),
            dp_process_group=self.seq_data_parallel_group,
            reduce_scatter=self.zero_reduce_scatter(),
            overlap_comm=False,
            mpu=self.mpu,
            gradient_average=self.gradient_average,
            gradient_accumulation_steps=self.gradient_accumulation_steps(),
            gradient_accumulation_dtype=torch.float32,
            communication_data_type=self.communication_data_type,
            partition_grads=stage == 2,
            check_grad_overflow=False,
            **loss_scale,
        )

    def _partitioned_optimizer(
        self, optimizer: UpdateRule, loss_scale: dict[str, Any]
    ) -> PathSparsePartitionedOptimizer:
        return PathSparsePartitionedOptimizer(
            self.module,
            optimizer,
            self.param_names,
            timers=NoopTimer(),
            ds_config=self.config,
            clip_grad=self.gradient_clipping(),
            reduce_bucket_size=self.zero_reduce_bucket_size(),
            prefetch_bucket_size=self.zero_prefetch_bucket_size(),
            max_live_parameters=self.zero_max_live_parameters(),
            param_persistence_threshold=0,
            dp_process_group=self.seq_data_parallel_group,
            offload_optimizer_config=self.zero_offload_optimizer(),
            offload_ratio=1.0,
            mpu=self.mpu,
            gradient_accumulation_steps=self.gradient_accumulation_steps(),
            gradient_accumulation_dtype=torch.float32,
            communication_data_type=self.communication_data_type,
            **loss_scale,
        )


def build_path_sparse_engine(
    module: nn.Module, optimizer: UpdateRule, config: dict[str, Any]
) -> PathSparseEngine:
    """Builds the engine as ``deepspeed.initialize`` does; the process group must stand.

    Args:
        module: what ``engine(...)`` runs; it is cast to the precision in ``config``.
        optimizer: the update rule, over `parameter_groups`.
        config: the DeepSpeed dict.

    Raises:
        UserError: this version of DeepSpeed was not tested, or a setting would run wrong.
    """
    check_deepspeed_version()
    typed = DeepSpeedConfig(config)
    check_zero_config(typed.zero_config)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    engine = PathSparseEngine(
        args=None,
        model=module,
        optimizer=optimizer,
        model_parameters=parameters,
        config=config,
        config_class=typed,
    )
    engine._configure_python_gc()
    return engine
