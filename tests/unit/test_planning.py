"""What --plan computes: activations against real forwards, work against sums by hand, its words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_probe import allocated_bytes, token_batch

from magicbert import cli
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.rehearsal import rehearsal_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.config.plan_section import PlanSection
from magicbert.config.reading import load_config
from magicbert.config.roots import PretrainConfig
from magicbert.config.sections import (
    AlignmentSection,
    LaunchSection,
    ModelSection,
    RunSection,
    TrainingSection,
)
from magicbert.errors import UserError
from magicbert.planning.backward import Sharding
from magicbert.planning.budget import Hours, PathFlops, StepFlops, save_time
from magicbert.planning.memory import ForwardMemory, rank_memory
from magicbert.planning.plan import show_bytes
from magicbert.space import SearchSpace
from magicbert.space.cost import Cost, CostModel
from magicbert.stages.plan import Planner
from magicbert.stages.plan_facts import Rows, planned_ranks, rate_of
from magicbert.stages.plan_forward import forward_memory
from magicbert.trail import Trail
from magicbert.training.module import StepPlan, TrainingModule

ROOT = Path(__file__).parents[2]
OPERATORS = ("mha4", "ffn", "conv3", "conv5x96")
VOCABULARY, LENGTH, ROWS = 400, 48, 6


def configuration(precision: str, dropout: float, *, is_aligned: bool = False) -> PretrainConfig:
    return PretrainConfig(
        run=RunSection(root="nowhere"),
        model=ModelSection(
            hidden_size=64, max_length=LENGTH, dropout=dropout, attention_dropout=dropout
        ),
        alignment=AlignmentSection(enabled=is_aligned, num_blocks=2),
        training=TrainingSection(
            precision=precision, rows_per_micro_batch=ROWS, rows_per_step=ROWS
        ),
    )


@pytest.mark.parametrize("is_aligned", [False, True], ids=["", "aligned"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", OPERATORS)
def test_activations_are_what_a_forward_leaves_allocated(name, precision, dropout, is_aligned):
    config = configuration(precision, dropout, is_aligned=is_aligned)
    space = SearchSpace.uniform(2, (name,))
    (path,) = space.enumerate()
    rehearsed = rehearsal_supernet(space, config.model, VOCABULARY, is_packed=False)
    rows = Rows(VOCABULARY, LENGTH, is_packed=False)
    planned = forward_memory(rehearsed, config, config.alignment, rows, "cpu")

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    supernet = build_supernet(space, config.model, VOCABULARY, 0, seed=0).to(dtype)
    module = TrainingModule(supernet, MaskedLanguageModeling(), config.alignment)
    num_predicted = round(ROWS * LENGTH * config.masking.probability)
    batch = token_batch(ROWS, LENGTH, VOCABULARY, num_predicted)
    plan = StepPlan(0, path, path if is_aligned else None, num_predicted, ROWS * LENGTH)
    left, *_ = allocated_bytes(lambda: module(batch, plan))
    assert planned.kept == pytest.approx(left, rel=0.03)


def test_the_path_that_keeps_most_is_found():
    space = SearchSpace.uniform(2, ("mha4", "ffn"))
    config = configuration("fp32", 0.0)
    rows = Rows(VOCABULARY, LENGTH, is_packed=False)

    def kept(*names: str) -> int:
        net = rehearsal_supernet(
            SearchSpace.uniform(2, names), config.model, VOCABULARY, is_packed=False
        )
        return forward_memory(net, config, config.alignment, rows, "cpu").kept

    assert space.count() == 4
    assert kept("mha4", "ffn") == max(kept("mha4"), kept("ffn")) > min(kept("mha4"), kept("ffn"))


def test_fused_kernels_keep_no_attention_weights():
    space = SearchSpace.uniform(1, ("mha4",))
    rows = Rows(VOCABULARY, LENGTH, is_packed=False)
    config = configuration("bf16", 0.1)

    def kept(device: Any) -> int:
        net = rehearsal_supernet(space, config.model, VOCABULARY, is_packed=False)
        return forward_memory(net, config, config.alignment, rows, device).kept

    # The CPU keeps the weights of 4 heads twice at least: as softmax and as dropout's factors.
    assert kept("cpu") - kept("cuda") > 2 * 2 * ROWS * 4 * LENGTH**2


GROUPS, PATH = [1000, 10, 600, 6, 400], [1000, 10, 600]
NOTHING = ForwardMemory(0, 0)


def sharding(stage: Any, num_ranks: int, **other: Any) -> Sharding:
    values = {"value_bytes": 2, "bucket_values": 500, "accumulates": False, "offloads": False}
    return Sharding(stage=stage, num_ranks=num_ranks, **{**values, **other})


def test_state_is_shared_among_ranks_from_stage_1_on():
    alone = rank_memory(sharding(0, 4), GROUPS, PATH, NOTHING)
    assert (alone.weights, alone.masters, alone.moments) == (2 * 2016, 4 * 2016, 8 * 2016)
    for stage in (1, 2):
        shared = rank_memory(sharding(stage, 4), GROUPS, PATH, NOTHING)
        padded = 1000 + 16 + 600 + 8 + 400
        assert shared.weights == 2 * padded
        assert (shared.masters, shared.moments) == (padded, 2 * padded)


def test_stage_3_shares_the_weights_and_gathers_the_path_and_the_anchor():
    def memory(num_ranks: int, **more: Any) -> Any:
        return rank_memory(sharding(3, num_ranks, most_live=10**6), GROUPS, PATH, NOTHING, **more)

    alone, shared, aligned = memory(1), memory(4), memory(4, anchor=[600, 8])
    assert shared.weights == 2 * (1000 + 16 + 600 + 8 + 400) // 4
    assert alone.buffers == 500 * 4
    assert shared.buffers == alone.buffers + 2 * (1000 + 16 + 600)
    assert aligned.buffers == shared.buffers + 2 * 608


def test_fp32_weights_are_their_own_masters_unless_offloaded():
    fp32 = rank_memory(sharding(1, 1, value_bytes=4), GROUPS, PATH, NOTHING)
    assert fp32.masters == 0
    offloaded = rank_memory(sharding(1, 1, value_bytes=4, offloads=True), GROUPS, PATH, NOTHING)
    assert offloaded.masters == offloaded.moments == 0
    assert offloaded.host >= 12 * sum(GROUPS)


def test_the_peak_follows_the_larger_end_of_the_backward():
    small = rank_memory(sharding(1, 2), GROUPS, PATH, NOTHING)
    large = rank_memory(sharding(1, 2), GROUPS, PATH, ForwardMemory(10**6, 10**5))
    state = small.weights + small.masters + small.moments
    assert small.peak == state + small.gradients + small.buffers
    assert large.peak == state + 1_100_000 + large.buffers


def test_flops_are_three_forwards_and_the_anchors():
    space = SearchSpace.uniform(2, ("a", "b"))
    cost = CostModel({"a": Cost(0, 10.0), "b": Cost(0, 30.0)}, Cost(0, 1.0))
    path = PathFlops.of(space, cost, head=4.0)
    assert (path.mean, path.largest) == (45.0, 65.0)
    plain = StepFlops.of(path, rows=8, num_references=0)
    aligned = StepFlops.of(path, rows=8, num_references=1)
    assert (plain.mean, plain.largest, plain.anchor) == (3 * 45 * 8, 3 * 65 * 8, 0.0)
    assert aligned.mean - plain.mean == aligned.anchor == 45 * 8


def test_a_checkpoint_is_in_time_or_not():
    quick = save_time([10**6], 2, disk=12e6, digest=12e6, step_seconds=0.0)
    assert quick.num_bytes == 12_000_000
    assert quick.seconds == pytest.approx(1.0 + 1.0)
    assert quick.is_in_time
    assert not save_time([10**6], 2, disk=12e6, digest=12e6, step_seconds=29.0).is_in_time


def test_hours_at_a_rate():
    hours = Hours.of(7_200_000, 1000.0, 4, flops=2.88e16)
    assert (hours.wall, hours.devices) == (2.0, 8.0)
    assert hours.flops_per_second == pytest.approx(1e12)


def test_ranks_are_given_or_the_hostfiles(tmp_path):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# two hosts\nfirst slots=8\n\nsecond slots=4\n")
    launch = LaunchSection(hostfile=str(hostfile), num_ranks=3)
    assert planned_ranks(launch, PlanSection()) == 12
    assert planned_ranks(launch, PlanSection(num_ranks=64)) == 64
    assert planned_ranks(LaunchSection(num_ranks=3), PlanSection()) == 3
    hostfile.write_text("first\n")
    with pytest.raises(UserError, match="slots=NUMBER"):
        planned_ranks(launch, PlanSection())
    hostfile.unlink()
    with pytest.raises(UserError, match="not a file"):
        planned_ranks(launch, PlanSection())


def test_the_rate_of_an_earlier_start_grows_with_the_ranks(tmp_path):
    assert rate_of(tmp_path, PlanSection(), 4).tokens_per_second == 0
    config = replace(configuration("fp32", 0.0), launch=LaunchSection(num_ranks=2))
    with Trail(tmp_path, config) as trail:
        for speed in (1.0, 100.0, 120.0, 80.0):
            trail.record("train", step=1, tokens_per_second=speed)
    assert rate_of(tmp_path, PlanSection(), 2).tokens_per_second == 90.0
    scaled = rate_of(tmp_path, PlanSection(), 4)
    assert scaled.tokens_per_second == 180.0
    assert "2 ranks" in scaled.source
    assert rate_of(tmp_path, PlanSection(tokens_per_second=7.0), 4).source == "given"


def plan(*words: str) -> None:
    config = str(ROOT / "configs" / "base" / "pretrain.yaml")
    cli.main(["pretrain", "--config", config, "--run.root", "nowhere", *words])


def test_a_plan_needs_no_data_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan("--plan=json", "--plan.vocab_size", "50265", "--plan.num_ranks", "32",
         "--plan.tokens_per_second", "2e6", "--plan.disk_megabytes_per_second", "10")  # fmt: skip
    record = json.loads(capsys.readouterr().out)
    assert record["num_ranks"] == 32
    assert record["tokens"] == 62500 * 1024 * 512
    assert record["hours"]["wall"] == pytest.approx(record["tokens"] / 2e6 / 3600)
    assert record["checkpoint"]["num_bytes"] == 12 * record["parameters"]
    assert not record["checkpoint"]["is_in_time"]
    assert "SIGTERM" in record["warnings"][0]
    assert not list(tmp_path.iterdir())


def test_the_table_names_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan("--plan", "--plan.vocab_size", "50265", "--plan.length", "128",
         "--plan.disk_megabytes_per_second", "1e6")  # fmt: skip
    text = capsys.readouterr().out
    for part in ("weights", "masters", "moments", "gradients", "activations", "buffers", "peak"):
        assert f"\n  {part}" in text
    assert "x 128 tokens" in text
    assert "give --plan.tokens_per_second" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan"], "no prepared data"),
        (["--plan", "--plan.vocab_size", "1000", "--plan.num_ranks", "7"], "not a multiple"),
        (["--plan.vocab", "1000"], "did you mean 'vocab_size'"),
    ],
)
def test_mistakes_are_told(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        plan(*words)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_only_training_is_planned(capsys):
    with pytest.raises(SystemExit):
        cli.main(["search", "--plan"])
    assert "--plan is for pretrain, retrain, compress, not for search" in capsys.readouterr().err


def test_a_retraining_is_planned_by_its_architecture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = cli.load_config(
        cli.VERBS["retrain"].config,
        str(ROOT / "configs" / "base" / "retrain.yaml"),
        {"architecture": "mha12-ffn-conv3", "run.root": "nowhere"},
    )
    made = Planner("retrain", config, PlanSection(vocab_size=30522)).plan()
    assert "3 layers, 1 paths" in made.headline
    assert made.path_flops.mean == made.path_flops.largest


def test_a_delayed_alignment_is_planned_without_the_anchor_in_its_first_steps():
    def planned(delay: int):
        words = {"training.num_steps": "1000", "alignment.delay_steps": str(delay)}
        file = str(ROOT / "configs" / "tiny" / "pretrain.yaml")
        config = load_config(PretrainConfig, file, {**words, "alignment.enabled": "true"})
        return Planner("pretrain", config, PlanSection(vocab_size=512)).plan()

    whole, late, never = (planned(delay) for delay in (0, 400, 5000))
    anchor = whole.step_flops.anchor
    assert anchor > 0
    assert late.run_flops == pytest.approx(whole.run_flops - 400 * anchor)
    assert never.run_flops == pytest.approx(whole.run_flops - 1000 * anchor)


def test_bytes_are_shown_in_the_unit_that_fits():
    assert show_bytes(12) == "12 B"
    assert show_bytes(3 * 1024**2) == "3.00 MiB"
    assert show_bytes(5 * 1024**6) == "5120.00 PiB"


def test_options_of_the_plan_stand_apart_from_the_runs():
    words = ["pretrain", "--plan.num_ranks", "4", "--training.num_steps", "7"]
    request = cli.parse(words)
    assert request.plan == "table"
    assert dict(request.overrides) == {"training.num_steps": "7"}


def test_the_documented_plan_is_what_the_documented_command_prints(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    section = page.split("## Plan before you start")[1]
    command, shown = section.split("```bash\n")[1].split("\n```\n\n```\n")
    cli.main(command.split()[1:])
    printed = capsys.readouterr().out

    def lasting(text: str) -> list[str]:
        # How long a save takes depends on how fast this machine hashes.
        return [line for line in text.strip().splitlines() if "s to save" not in line]

    assert lasting(shown.split("\n```")[0]) == lasting(printed)
