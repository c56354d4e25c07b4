"""The one place that writes the DeepSpeed dict."""

from __future__ import annotations

from typing import Any

from magicbert.config.sections import OptimizerSection, TrainingSection

LARGEST_BUCKET = 50_000_000  # elements; 200 MB of fp32


def deepspeed_dict(
    training: TrainingSection, optimizer: OptimizerSection, *, num_ranks: int, num_parameters: int
) -> dict[str, Any]:
    """Returns the configuration of the DeepSpeed engine.

    Gradients are *summed*, over micro-batches and ranks, in fp32: the loop divides the loss by
    the global number of terms, so DeepSpeed's mean over ranks is switched off here (and its
    division by the accumulation steps where ``engine.backward`` is called).

    Args:
        training: batch sizes, precision and ZeRO stage.
        optimizer: the clipping norm; AdamW itself is built by `magicbert.training.engine`.
        num_ranks: data-parallel ranks.
        num_parameters: parameters of the model; no bucket need be larger.
    """
    return {
        "train_batch_size": training.rows_per_step,
        "train_micro_batch_size_per_gpu": training.rows_per_micro_batch,
        "gradient_accumulation_steps": num_micro_batches(training, num_ranks),
        # Stock stage 3 knows the mean alone; the path-sparse one sums whatever stands here.
        "gradient_allreduce_op": "mean" if training.zero_stage == 3 else "sum",
        "gradient_clipping": optimizer.clip_norm,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": training.zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": False,
            "reduce_bucket_size": min(num_parameters, LARGEST_BUCKET),
            # It would replace torch's linear for the whole process; path-sparse stage 3 frees and
            # fills the storages of gathered weights instead.
            "memory_efficient_linear": False,
            "stage3_max_live_parameters": training.max_live_parameters,
            "offload_optimizer": {"device": "cpu" if training.offload_optimizer else "none"},
        },
        "zero_allow_untested_optimizer": True,
        # torch's fused AdamW steps host memory too; it is the one whose exactness is tested.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": training.precision == "bf16"},
        "fp16": {"enabled": training.precision == "fp16", "initial_scale_power": 16},
        # DeepSpeed prints nothing of its own; the loop reports.
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }


def num_micro_batches(training: TrainingSection, num_ranks: int) -> int:
    """Returns the micro-batches of one rank in one optimizer step."""
    return training.rows_per_step // (training.rows_per_micro_batch * num_ranks)


def stock_dict(stage: int, rows_per_micro_batch: int, clip_norm: float) -> dict[str, Any]:
    """Returns DeepSpeed's own defaults at a ZeRO stage: what `magicbert bench` compares with.

    Args:
        stage: ZeRO stage.
        rows_per_micro_batch: rows of one forward on one rank; one a step.
        clip_norm: largest norm of the gradient.
    """
    return {
        "train_micro_batch_size_per_gpu": rows_per_micro_batch,
        "gradient_clipping": clip_norm,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
