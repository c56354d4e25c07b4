"""What ``magicbert bench interference`` measures: who is right about cosines, and the probe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import run_ranks

from magicbert.bench.interference.gram import GramTrial
from magicbert.bench.interference.probing import STEP
from magicbert.bench.interference.suite import interference_suite
from magicbert.bench.registry import OWN, Contender
from magicbert.config.reading import load_config
from magicbert.config.roots import BenchConfig

CPU = torch.device("cpu")


def test_everyone_agrees_with_fp64_on_the_cosines() -> None:
    trial = GramTrial(0, CPU, num_values=512).trial(peers=True)
    assert trial.lineup.contenders[0].name == OWN
    assert len(trial.lineup.contenders) == 3
    assert all(trial.judge(contender).is_right for contender in trial.lineup.contenders)
    assert trial.units == 16 * 4 * 512 * 4, "bytes of all gradients"


def test_a_wrong_cosine_is_seen() -> None:
    gram = GramTrial(0, CPU, num_values=512)
    cosines = gram.gram(0)
    cosines[3, 5] += 1e-2
    assert not gram.verdict(Contender("wrong", lambda index: cosines)).is_right


@pytest.mark.distributed
def test_the_probe_is_judged_and_walks_beside_a_step_that_trains(tmp_path: Path) -> None:
    (found,) = run_ranks("bench_probe_worker:judge_and_step", 1, tmp_path)
    assert found["names"] == [OWN, STEP]
    assert all(found["right"])
    assert found["before"] != found["after"]


def test_the_suite_has_both_cases() -> None:
    config = load_config(BenchConfig, None, {"target": "interference", "measure.device": "cpu"})
    names = [case.name for case in interference_suite(config).cases]
    assert names == ["cosines of gradients", "probe of interference"]
