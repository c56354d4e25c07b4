"""The joint step of replaced-token detection under every ZeRO stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed


def test_generator_and_discriminator_train_as_in_plain_torch_at_every_stage(tmp_path: Path) -> None:
    for check in run_ranks("electra_worker:check_stages", 2, tmp_path):
        assert set(check) == {"0", "1", "2", "3"}
        for stage, found in check.items():
            assert found["error"] < 1e-5, stage
            # An operator that was not sampled stays as it was; the generator is on every path.
            assert found["idle"] == 0.0, stage
            assert found["generator moved"], stage
            assert found["loss error"] < 1e-4, stage
