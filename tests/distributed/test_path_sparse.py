"""Training touches the sampled path and nothing else, as plain torch would with ``grad=None``.

DeepSpeed is real, so are the processes. The stock policy is the mutant: it must fail the checks.
"""

from __future__ import annotations

from typing import Any

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def checks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What every rank found, from one start of the processes."""
    folder = tmp_path_factory.mktemp("path_sparse")
    return run_ranks("path_sparse_worker:check_everything", request.param, folder, timeout=580)


def assert_exact(cells: dict[str, Any]) -> None:
    for name, found in cells.items():
        assert found["strays"] == [], name
        assert found["idle"] == [], name
        # A bf16 weight on the edge between two values may round the other way.
        bound = 5e-5 if "bf16" in name else 1e-6
        assert found["errors"]["weights"] < bound, name
        assert found["errors"]["loss"] < (1e-3 if "bf16" in name else 1e-6), name
        assert found["errors"]["norm"] < (5e-3 if "bf16" in name else 1e-5), name


def test_the_path_is_trained_as_plain_torch_trains_it_and_nothing_else_moves(
    checks: list[Any],
) -> None:
    for check in checks:
        assert_exact(check["cells"])


def test_clipping_was_at_work_where_it_is_on(checks: list[Any]) -> None:
    for check in checks:
        for name, found in check["cells"].items():
            assert found["clips"] == ("clip_norm=0.0" not in name), name


def test_stock_deepspeed_moves_unsampled_operators(checks: list[Any]) -> None:
    for check in checks:
        for stage in (0, 1, 2):
            strays = check["stock"][f"stage {stage}"]["strays"]
            assert [n for n in strays if n.endswith(" weight")], "weights that move go unnoticed"
            assert [n for n in strays if n.endswith(" step")], "counters that run go unnoticed"


def test_stock_offload_replays_stale_gradients(checks: list[Any]) -> None:
    # Without momentum and decay stock ZeRO-1 keeps unsampled weights; with offload it does not.
    for check in checks:
        moving = {
            name: [stray for stray in check["stock"][name]["strays"] if stray.endswith(" weight")]
            for name in ("still", "still, offload")
        }
        assert moving["still"] == []
        assert moving["still, offload"] != []


def test_trajectory_of_stock_deepspeed_is_another_one(checks: list[Any]) -> None:
    for check in checks:
        assert check["stock"]["stage 1"]["errors"]["weights"] > 1e-4
        assert check["stock"]["stage 1"]["errors"]["norm"] > 1e-4


def test_other_policies_and_lamb_equal_their_references(checks: list[Any]) -> None:
    for check in checks:
        for name, found in check["other rules"].items():
            bound = 5e-5 if "bf16" in name else 1e-6
            assert found["errors"]["weights"] < bound, name
            if "zero-gradient" in name:
                assert found["strays"], name
            else:
                assert found["strays"] == [], name


def test_a_late_operator_starts_with_an_update_of_the_learning_rate(checks: list[Any]) -> None:
    for check in checks:
        assert check["first update"]["path-sparse"] == pytest.approx(1.0, abs=0.02)
        assert check["first update"]["shared-step"] == pytest.approx(2.94, abs=0.06)


def test_key_biases_have_a_gradient_of_zero(checks: list[Any]) -> None:
    gradients = checks[0]["key bias gradients"]
    assert len(gradients["key"]) == 3
    assert max(gradients["key"].values()) < 1e-15 < 1e-6 < min(gradients["query"].values())


def test_bert_is_trained_as_plain_torch_trains_it_but_for_key_biases(checks: list[Any]) -> None:
    for check in checks:
        assert check["bert"]["else"] < 1e-6
        assert check["bert"]["key bias"] < 30 * 2e-3  # round-off that Adam turned into steps


def test_gradients_do_not_depend_on_ranks_and_micro_batches(checks: list[Any]) -> None:
    for check in checks:
        for setting, error in check["gradients"].items():
            assert error < 1e-6, setting


def test_pieces_of_all_ranks_rebuild_the_model(checks: list[Any]) -> None:
    for check in checks:
        for setting, faults in check["placement"].items():
            assert faults == [], setting


def test_four_ranks(tmp_path: Any) -> None:
    for check in run_ranks("path_sparse_worker:check_few", 4, tmp_path):
        assert_exact(check["cells"])
        assert not any(check["placement"].values())


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_the_whole_matrix(num_ranks: int, tmp_path: Any) -> None:
    checks = run_ranks("path_sparse_worker:check_whole_matrix", num_ranks, tmp_path, timeout=1500)
    for check in checks:
        assert_exact(check["cells"])


def test_half_precision_is_refused_or_skips_overflows_whole(checks: list[Any]) -> None:
    for check in checks:
        found = check["half precision"]
        if "refused" in found:
            assert found["refused"].startswith("training.precision: ")
            assert "does not train in fp16; use one of: fp32" in found["refused"]
            assert "\n" not in found["refused"]
        else:
            assert found["skipped"] == []
            assert found["scale"] < 2.0**40
            assert found["trained"]
