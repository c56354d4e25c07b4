"""What a study consists of: its table, its units and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_study import SETTING, SPACE, TABLE, ToyStudyTenant, toy_units

from magicbert.config.sections import DownstreamSection, RankingSection, StudiedSupernetSection
from magicbert.errors import UserError
from magicbert.space import SearchSpace
from magicbert.study.architectures import chosen, table_architectures
from magicbert.study.estimates import UnitCosts, plan_lines
from magicbert.study.methods import (
    alignment_of,
    completed,
    optimizer_of,
    options_of,
    sampling_of,
    supernet_forwards,
    supernet_steps,
)
from magicbert.study.units import AloneUnit, DownstreamUnit, SupernetUnit

DEEP = SearchSpace.uniform(12, ("mha2", "ffn", "conv3", "conv5"))


def test_a_periodic_table_is_complete_and_of_full_depth() -> None:
    table = table_architectures(RankingSection(table="periodic", period=4), DEEP)
    assert len(set(table)) == 4**4
    assert all(path.operators == path.operators[:4] * 3 for path in table)


def test_a_stretched_table_has_the_periodic_ones_operators_in_runs() -> None:
    periodic, stretched = (
        table_architectures(RankingSection(table=kind, period=4), DEEP)
        for kind in ("periodic", "stretched")
    )
    assert len(set(stretched)) == 4**4
    for path, in_runs in zip(periodic, stretched, strict=True):
        assert in_runs.operators[::3] == path.operators[:4]
        assert in_runs.operators[0] == in_runs.operators[1] == in_runs.operators[2]
        assert sorted(in_runs.operators) == sorted(path.operators)
    with pytest.raises(UserError, match=r"ranking\.period: 12 layers are no multiple"):
        table_architectures(RankingSection(table="stretched", period=5), DEEP)


def test_a_uniform_table_is_drawn_once_and_without_repeats() -> None:
    setting = RankingSection(num_architectures=60)
    table = table_architectures(setting, DEEP)
    assert len(set(table)) == 60
    assert table == table_architectures(setting, DEEP)
    assert table[:20] == table_architectures(replace(setting, num_architectures=20), DEEP)
    assert table != table_architectures(replace(setting, table_seed=1), DEEP)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (RankingSection(table="periodic", period=5), "ranking.period: 12 layers are no multiple"),
        (RankingSection(table="periodic", period=12), "ranking.period: 12 layers have 16,777,216"),
    ],
)
def test_tables_that_a_space_does_not_have(setting: RankingSection, message: str) -> None:
    with pytest.raises(UserError, match=message):
        table_architectures(setting, DEEP)
    with pytest.raises(UserError, match="the space has 9 architectures"):
        table_architectures(RankingSection(), SPACE)


def test_a_larger_choice_holds_every_smaller_one() -> None:
    table = table_architectures(RankingSection(table="periodic", period=4), DEEP)
    some, more = chosen(table, 32, 0), chosen(table, 60, 0)
    assert some == more[:32]
    assert set(chosen(table, 1000, 0)) == set(table)


def test_models_and_supernets_are_mixed_and_come_before_their_fine_tuning() -> None:
    units = toy_units(
        num_seeds=2,
        long_steps=9,
        num_long=2,
        downstream=DownstreamSection(tasks=("sst2", "rte"), num_architectures=2, budget="long"),
    )
    kinds = [type(unit) for unit in units]
    assert kinds[:9] == 3 * [AloneUnit, AloneUnit, SupernetUnit]
    assert kinds[9:] == [AloneUnit] * 4 + [DownstreamUnit] * 4
    # All seeds of an architecture come together.
    seeds = [unit.seed for unit in units[:9] if isinstance(unit, AloneUnit)]
    assert seeds == [0, 1] * 3
    kept = [unit for unit in units if isinstance(unit, AloneUnit) and unit.is_kept]
    assert [(unit.budget, unit.seed) for unit in kept] == [("long", 0)] * 2
    assert len({unit.key for unit in units}) == len(units)


def test_a_key_changes_with_what_its_method_heeds_and_with_nothing_else() -> None:
    plain = StudiedSupernetSection(method="spos")
    assert options_of(plain) == "plain"
    assert options_of(replace(plain, weight=9.0, num_changes=3, num_seeds=7)) == "plain"
    both = StudiedSupernetSection(method="magic-at")
    assert options_of(both) == "k1-w0.5-b4-best-every100-dev5"
    changes = [
        {"num_changes": 2}, {"weight": 0.1}, {"num_blocks": 2}, {"anchor": "top-percent"},
        {"anchor_every": 7}, {"anchor_batches": 9}, {"learning_rate": 1e-3},
    ]  # fmt: skip
    keys = {SupernetUnit(replace(both, **change), 0, 5).key for change in [{}, *changes]}
    assert len(keys) == 1 + len(changes)


def test_methods_become_the_sections_that_training_reads() -> None:
    made = {}
    for method in ("spos", "strict-fair", "magic-t", "magic-a", "magic-at"):
        entry = StudiedSupernetSection(method=method, num_changes=3, weight=0.25, alignment_delay=9)  # type: ignore[arg-type]
        sampling, alignment = sampling_of(entry), alignment_of(entry)
        assert (alignment.weight, alignment.delay_steps) == (0.25, 9)
        made[method] = (sampling.method, sampling.num_changes, alignment.enabled)
    assert made == {
        "spos": ("uniform", 1, False),
        "strict-fair": ("strict-fair", 1, False),
        "magic-t": ("magic-t", 3, False),
        "magic-a": ("uniform", 1, True),
        "magic-at": ("magic-t", 3, True),
    }


def test_equal_flops_leave_aligned_supernets_fewer_steps() -> None:
    """A step of 3 forwards, an anchor's forward, 2 paths on 5 x 32 dev rows every 100 steps."""
    setting = RankingSection(rows_per_step=64, rows_per_micro_batch=32, supernet_steps=1000)
    for method, forwards in (("spos", 3.0), ("magic-t", 3.0), ("magic-a", 4 + 3.2 / 64)):
        entry = StudiedSupernetSection(method=method, equal_flops=True)  # type: ignore[arg-type]
        assert supernet_steps(entry, setting, DEEP) == int(1000 * 3 / forwards)
        assert supernet_steps(replace(entry, equal_flops=False), setting, DEEP) == 1000


def test_equal_flops_count_alignment_from_the_end_of_its_delay() -> None:
    """3,000 forwards of 64 rows: 200 steps of 3, then steps of 4.05 for the 2,400 that are left."""
    setting = RankingSection(rows_per_step=64, rows_per_micro_batch=32, supernet_steps=1000)
    entry = StudiedSupernetSection(method="magic-a", equal_flops=True, alignment_delay=200)
    steps = supernet_steps(entry, setting, DEEP)
    assert steps == 200 + int(2400 / 4.05)
    assert supernet_forwards(entry, steps, setting, DEEP) == pytest.approx(64 * 3000, rel=2e-3)
    late = replace(entry, alignment_delay=1000)
    assert supernet_steps(late, setting, DEEP) == 1000
    assert supernet_forwards(late, 1000, setting, DEEP) == 64 * 3000


def test_a_delay_is_part_of_a_supernets_name() -> None:
    entry = StudiedSupernetSection(method="magic-at")
    assert "delay" not in options_of(entry)
    assert options_of(replace(entry, alignment_delay=7)).endswith("-delay7")


def test_the_plan_counts_flops_by_hand() -> None:
    costs = UnitCosts(ToyStudyTenant(), SETTING, SPACE, TABLE)
    units = toy_units(num_dev_batches=2)
    first = next(unit for unit in units if unit.key.startswith("alone/small-small/"))
    lines = {line.name: line for line in plan_lines(units, {first.key: {}}, costs)}
    # Forwards cost 3, 5 and 7; 6 steps of 8 rows; 2 x 64 dev rows at 3 points and at the end.
    rows = 3 * 6 * 8 + 2 * 64 * 4
    assert lines["alone, short"].flops == (3 + 5 + 7) * rows
    assert lines["alone, short"].flops_left == (5 + 7) * rows
    assert (lines["alone, short"].num_units, lines["alone, short"].num_done) == (3, 1)
    scored = 2 * 64 * (4 * 3 + 3)
    assert lines["supernet spos, default"].flops == 5.0 * (12 * 3 * 8 + scored)
    aligned = 12 * (4 * 8 + 2 * 8 / 3)
    assert lines["supernet magic-at, default"].flops == pytest.approx(5.0 * (aligned + scored))


def test_a_supernet_takes_the_nearest_rate_and_warm_up_that_is_given() -> None:
    setting = replace(SETTING, supernet_learning_rate=0.5, supernet_warmup_steps=7)
    own = completed(StudiedSupernetSection(learning_rate=0.25, warmup_steps=3), setting)
    shared = completed(StudiedSupernetSection(), setting)
    usual = completed(StudiedSupernetSection(), SETTING)
    rules = [optimizer_of(entry, SETTING.optimizer) for entry in (own, shared, usual)]
    given = SETTING.optimizer
    assert [rule.learning_rate for rule in rules] == [0.25, 0.5, given.learning_rate]
    assert [rule.warmup_steps for rule in rules] == [3, 7, given.warmup_steps]
    assert options_of(own).startswith("lr0.25-warm3")
    assert options_of(usual) == "plain"
