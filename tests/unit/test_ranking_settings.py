"""Settings that vary others: what they are held against, and where they stand on an axis."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats
from synthetic_study import alone_rows, supernet_row

from magicbert.config.sections import StudiedSupernetSection
from magicbert.ranking.ablations import PLACES
from magicbert.ranking.reasons import default_poor
from magicbert.ranking.settings import at_equal_steps, base_of, is_at_equal_flops
from magicbert.ranking.study_result import study_result
from magicbert.ranking.tables import tables
from magicbert.report.ranking_pictures import pictures

SEEDS = range(4)
# Noise of the scores: the default settings do not rank at all.
SPREADS = {"default": 3.0, "delay=10": 0.4, "delay=10, lambda=1": 0.2, "delay=10, lambda=2": 0.41}


@pytest.mark.parametrize(
    ("settings", "known", "base"),
    [
        ("delay=9, p=10", ("default", "delay=9", "p=10, delay=9"), "delay=9"),
        ("p=10, delay=9", ("default", "k=2"), "default"),
        ("p=10", ("default", "p=10", "p=30"), "default"),
        ("p=10, delay=9", ("delay=99", "p=1"), None),
        ("default", ("default", "k=2"), None),
        ("delay=9, equal-flops", ("default", "delay=9"), None),
    ],
)
def test_settings_are_held_against_those_that_change_one_thing_less(settings, known, base):
    assert base_of(settings, known) == base


def test_a_cut_of_steps_is_no_setting_of_its_own():
    assert at_equal_steps("delay=9, equal-flops") == "delay=9"
    assert at_equal_steps("equal-flops") == "default"
    assert at_equal_steps("delay=9, k=2") == "delay=9, k=2"
    assert is_at_equal_flops("delay=9, equal-flops")
    assert not is_at_equal_flops("equal-flops-not")


def test_places_on_an_axis_are_the_options_defaults():
    entry = StudiedSupernetSection()
    assert (PLACES["k"], PLACES["lambda"], PLACES["blocks"], PLACES["delay"]) == (
        entry.num_changes, entry.weight, entry.num_blocks, entry.alignment_delay,
    )  # fmt: skip
    assert (PLACES["p"], entry.anchor) == (0, "best")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    rows = alone_rows()
    for seed in SEEDS:
        rows.append(supernet_row("spos", seed, 0.4))
        rows += [supernet_row("magic-at", seed, sd, name) for name, sd in SPREADS.items()]
        cut = supernet_row("magic-at", seed, 0.5, "delay=10, equal-flops")
        rows.append({**cut, "steps": 3000, "flops": 1.01 * rows[-5]["flops"]})
    return study_result(rows)


def test_what_varies_a_delay_is_paired_with_the_delay(result):
    gains = {gain["settings"]: gain for gain in result["differences_settings"]}
    assert {name: gain["baseline_settings"] for name, gain in gains.items()} == {
        "delay=10": "default",
        "delay=10, lambda=1": "delay=10",
        "delay=10, lambda=2": "delay=10",
    }
    taus = {(r["settings"], r["seed"]): r["tau"] for r in result["rows"] if r["method"] != "spos"}
    pairs = [(taus["delay=10, lambda=1", seed], taus["delay=10", seed]) for seed in SEEDS]
    wanted = stats.ttest_rel(*zip(*pairs, strict=True)).pvalue
    assert gains["delay=10, lambda=1"]["p_value"] == pytest.approx(wanted)
    # Two start from the delay, one from the default settings.
    holm = {name: gain["p_holm"] / gain["p_value"] for name, gain in gains.items()}
    assert holm["delay=10"] == pytest.approx(1)
    assert max(holm.values()) == pytest.approx(2)
    (table,) = (t for t in tables(result) if t.title == "Other settings")
    cells = {row[1]: row[5] for row in table.rows}
    assert cells["delay=10, lambda=1"].endswith("] to delay=10")
    assert cells["delay=10"].endswith("]")
    assert cells["delay=10, equal-flops"] == "–"


def test_only_what_starts_from_the_default_settings_judges_them(result):
    (found,) = (e for e in result["findings"] if "settings of MAGIC-AT are a poor" in e["topic"])
    assert "With delay=10 tau" in found["text"], "not the better lambda=1 beside it"


def test_a_gain_over_other_settings_says_nothing_about_the_default_ones():
    gain = {"method": "magic-at", "settings": "delay=5", "baseline_settings": "default",
            "mean": 0.1, "low": -0.1, "high": 0.3, "p_value": 0.06, "p_holm": 0.06}  # fmt: skip
    sure = {**gain, "settings": "delay=5, k=2", "baseline_settings": "delay=5", "p_holm": 0.001}
    _, verdict, text = default_poor({"differences_settings": [gain, sure]}, "magic-at")
    assert (verdict, text.split(" tau ")[0]) == ("undecided", "With delay=5")


def test_a_panel_has_a_line_for_each_settings_that_are_varied(result):
    panels = {panel["name"]: panel["points"] for panel in result["ablations"]}
    assert set(panels) == {"delay", "lambda"}
    assert [(p["base"], p["value"]) for p in panels["delay"]] == [("default", 0), ("default", 10)]
    assert [(p["base"], p["value"]) for p in panels["lambda"]] == [
        ("delay=10", 0.5), ("delay=10", 1), ("delay=10", 2),
    ]  # fmt: skip
    assert panels["lambda"][0]["settings"] == "delay=10"
    (drawn,) = (picture for picture in pictures(result) if picture.name == "ablations")
    assert "MAGIC-AT, delay=10" in drawn.svg


def test_a_cut_of_steps_is_compared_at_equal_flops(result):
    (gain,) = result["equal_flops"]
    assert (gain["settings"], gain["baseline_settings"]) == ("delay=10, equal-flops", "default")
    topics = [entry["topic"] for entry in result["findings"]]
    assert "MAGIC-AT, delay=10 ranks better than SPOS, equal training FLOPs" in topics
