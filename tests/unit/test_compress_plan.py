"""``compress --plan``: figures against real blocks and a real training, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from memory_probe import allocated_bytes
from tiny_compression import tiny_config, write_run

from magicbert import cli
from magicbert.bert.block_supernet import BlockRegression
from magicbert.bert.cost import bert_cost_model
from magicbert.bert.taught_batches import BlockBatch
from magicbert.compression.block_table import BlockTable
from magicbert.compression.shrinking_forecast import Forecast, forecast
from magicbert.config.plan_section import PlanSection
from magicbert.config.reading import to_yaml
from magicbert.config.roots import CompressConfig
from magicbert.config.sections import AlignmentSection, BlockTrainingSection
from magicbert.errors import UserError
from magicbert.planning.blocks import BlockFlops, BlockMemory, hours_of_blocks
from magicbert.space import Architecture
from magicbert.stages import compress
from magicbert.stages.compress_supernet import BlockwiseTraining
from magicbert.stages.plan_blocks import BlocksPlanner
from magicbert.stages.plan_compress import plan_of
from magicbert.training.module import StepPlan, TrainingModule

OPTIONS = PlanSection(device="cpu")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("compress-plan"))


def test_the_forecast_is_what_training_does(run: Path) -> None:
    """Steps, scored paths and rows of the tables, counted while a block is trained."""
    planned = BlocksPlanner(tiny_config(run), OPTIONS)
    scored: list[int] = []
    with ExitStack() as stack:
        training = BlockwiseTraining(tiny_config(run)).training(1, CPU, stack)
        losses = training.losses
        training.losses = lambda paths: scored.append(len(paths)) or losses(paths)  # type: ignore[method-assign]
        training.run(lambda: False)
        made = training.step.standing.step
    table, _ = BlockTable.read(run / "blocks" / "block-1")
    assert planned.forecast == Forecast(made, sum(scored), len(table.rows))
    assert planned.plan().steps == made


@pytest.mark.parametrize(
    ("sizes", "steps", "expected"),
    [
        # After a round of training, 9 paths become 7 and 5: two rounds of 4 scored and a table.
        ({0: 9, 1: 3}, 100, Forecast(30, 3 * (4 + 3), 5 + 3)),
        # The third round is never whole.
        ({0: 9, 1: 3}, 25, Forecast(25, 2 * (4 + 3), 5 + 3)),
        ({0: 2}, 100, Forecast(0, 2, 2)),
    ],
)
def test_rounds_by_hand(sizes: dict[int, int], steps: int, expected: Forecast) -> None:
    settings = BlockTrainingSection(
        num_steps=steps, steps_per_round=10, warmup_rounds=1, samples_per_bin=4, keep_per_bin=5
    )
    assert forecast(sizes, settings) == expected


def test_parameters_and_flops_are_those_of_real_blocks(run: Path) -> None:
    config = tiny_config(run)
    planner, work = BlocksPlanner(config, OPTIONS), BlockwiseTraining(config)
    planned = planner.plan()
    for number in (1, 2):
        block = work.supernet(number)
        counted = sum(weight.numel() for weight in block.parameters())
        assert planned.block_parameters[number - 1] == counted
    length = work.manifest.length
    sums = []
    for path in planner.candidates.pool.enumerate():
        width = int(path[0].removeprefix("w"))
        names = (name for name in path.operators[1:] if name != "skip")
        full = [work.supernet(1).operator_name(name, width) for name in names]
        own = sum(work.costs.of_operator(name).flops for name in full)
        sums.append(own + 2 * length * width * 32 * 2)
    assert planned.block_flops[0].path == pytest.approx(sum(sums) / len(sums))
    teacher = work.teacher.config
    first = Architecture(teacher.operators[:2])
    cost = bert_cost_model(teacher, teacher.operators, length)
    assert planned.block_flops[0].teacher == cost.cost(first).flops
    assert planned.block_flops[1].teacher == cost.cost(Architecture(teacher.operators)).flops
    rows, one = config.training.rows_per_step, planned.block_flops[0]
    assert one.step == pytest.approx(rows * (one.path * (3 + 1) + one.teacher))
    assert planned.run_flops == pytest.approx(sum(f.total for f in planned.block_flops))


@pytest.mark.parametrize("is_aligned", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_what_a_forward_leaves_allocated(
    run: Path, precision: str, is_aligned: bool
) -> None:
    given = tiny_config(run, alignment=AlignmentSection(enabled=is_aligned, num_blocks=2))
    settings = dataclasses.replace(given.training, precision=precision, rows_per_micro_batch=8)
    config = dataclasses.replace(
        given, training=settings, blocks=dataclasses.replace(given.blocks, operators=("ffn",))
    )
    planned = BlocksPlanner(config, OPTIONS).memory_of(1).activations
    work = BlockwiseTraining(config)
    block, source = work.supernet(1), work.source(1, CPU)
    batch: BlockBatch = source.step_batches(0, 0, 1)[0].to(CPU)
    module = TrainingModule(block, BlockRegression(), config.alignment).train()
    path = Architecture.parse("w16-ffn-ffn")
    step = StepPlan(0, path, path if is_aligned else None, batch.num_tokens, batch.num_tokens)

    def forward() -> object:
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            return module(batch, step)

    left, *_ = allocated_bytes(forward)
    inputs = batch.inputs.nbytes + batch.targets.nbytes
    assert left <= planned <= 1.25 * (left + inputs)


def test_memory_and_hours_by_hand() -> None:
    memory = BlockMemory.of(
        block=100, path=10, teacher=50, activations=900, teaching=300, accumulates=True
    )
    assert (memory.weights, memory.teacher, memory.moments) == (400, 200, 800)
    assert memory.peak == 1400 + 900 + 40
    flops = [
        BlockFlops.of(2.0, teacher, rows=4, steps=5, num_references=1, scored_rows=0, taught_rows=0)
        for teacher in (2.0, 6.0, 2.0)
    ]
    assert [one.training for one in flops] == [200.0, 280.0, 200.0]
    late = BlockFlops.of(
        2.0, 2.0, rows=4, steps=5, num_references=1, delay_steps=3, scored_rows=0, taught_rows=0
    )
    assert late.training == 200.0 - 3 * 4 * 2.0
    hours = hours_of_blocks(flops, tokens_per_block=3600, num_ranks=2, tokens_per_second=2.0)
    # A rank makes a token a second, a mean block takes an hour; the first rank has two blocks.
    assert hours.wall == pytest.approx(400 / (680 / 3))
    assert hours.devices == 2 * hours.wall


def test_the_choice_counts_the_tables(run: Path) -> None:
    config = tiny_config(run, target="select")
    before = plan_of(config, OPTIONS)
    assert (before.is_known, "at most" in before.as_text()) == (False, True)
    compress.run(tiny_config(run))
    after = plan_of(CompressConfig(target="select", run=config.run, select=config.select), OPTIONS)
    tables = [BlockTable.read(run / "blocks" / f"block-{n}")[0].rows for n in (1, 2)]
    assert after.models == len(tables[0]) * len(tables[1]) == before.models
    assert (after.is_known, after.evaluated, after.rows) == (True, 5, 4)
    assert not (run / "compress").exists()
    measured = plan_of(tiny_config(run), OPTIONS)
    assert "of this run's last start" in measured.rate_source
    assert measured.hours.wall > 0


def test_a_plan_needs_neither_data_nor_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = tiny_config(tmp_path / "none")
    (tmp_path / "compress.yaml").write_text(to_yaml(given))
    words = ["compress", "--config", "compress.yaml", "--plan.vocab_size", "100",
             "--plan.length", "16"]  # fmt: skip
    sizes = ["--plan.teacher_layers", "2", "--plan.teacher_width", "64"]
    cli.main([*words, *sizes, "--plan=json", "--plan.tokens_per_second", "1e4"])
    record = json.loads(capsys.readouterr().out)
    assert record["hours"]["wall"] > 0
    cli.main([*words, *sizes, "--target", "select"])
    assert "evaluated" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["compress.yaml"]
    mistakes = {
        "plan without it by --plan.teacher_layers": words,
        "is given together with teacher_width": [*words, *sizes[:2]],
        "70 is not made of heads of 64": [*words, *sizes[:3], "70"],
        "no prepared data here": [*words[:-2], *sizes],
        "do not make 5 blocks": [*words, "--blocks.num_blocks", "5", *sizes],
    }
    for message, arguments in mistakes.items():
        with pytest.raises(SystemExit) as error:
            cli.main(arguments)
        assert error.value.code == 2
        assert message in capsys.readouterr().err


def test_a_missing_teacher_is_told(run: Path) -> None:
    with pytest.raises(UserError, match="teacher: is not given; plan without it"):
        plan_of(tiny_config(run, teacher=""), OPTIONS)
