"""DeepSpeed's settings that would run wrong path-sparse are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from magicbert.config.deepspeed_dict import deepspeed_dict
from magicbert.config.sections import OptimizerSection, TrainingSection
from magicbert.errors import UserError

pytest.importorskip("deepspeed")

from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from magicbert.training.path_sparse.refusals import REFUSED, check_zero_config


def typed(**changed: Any) -> DeepSpeedZeroConfig:
    training = TrainingSection(rows_per_step=32, zero_stage=3)
    settings = deepspeed_dict(training, OptimizerSection(), num_ranks=1, num_parameters=10)
    return DeepSpeedZeroConfig(**{**settings["zero_optimization"], **changed})


def test_our_own_settings_pass() -> None:
    check_zero_config(typed())
    check_zero_config(typed(offload_optimizer={"device": "cpu"}, offload_param={"device": "none"}))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"offload_param": {"device": "cpu"}}, "offload_param: not available"),
        ({"offload_optimizer": {"device": "nvme", "nvme_path": "x"}}, "only host memory"),
        ({"offload_optimizer": {"device": "cpu", "ratio": 0.5}}, "ratio: must be 1.0"),
        ({"zero_hpz_partition_size": 2}, "zero_hpz_partition_size: not available"),
        ({"zero_quantized_weights": True}, "zero_quantized_weights: not available"),
        ({"zero_quantized_gradients": True}, "zero_quantized_gradients: not available"),
    ],
)
def test_what_would_run_wrong_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_zero_config(typed(**changed))


def test_every_refused_setting_is_one_of_deepspeeds() -> None:
    assert set(REFUSED) <= set(DeepSpeedZeroConfig.model_fields)
