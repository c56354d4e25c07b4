"""From rows to result: known taus come out, any part of a study works, verdicts follow rules."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from statistics import harmonic_mean
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic_study import (
    METHODS,
    OPERATORS,
    alone_rows,
    downstream_rows,
    expected_losses,
    study_rows,
    supernet_row,
    write_study,
)

from magicbert.errors import UserError
from magicbert.ranking.findings import VERDICTS, findings, longer_findings
from magicbert.ranking.reasons import default_poor, no_room, training_too_short
from magicbert.ranking.seeds import judge
from magicbert.ranking.study_result import study_result
from magicbert.ranking.study_rows import read_study_rows, supernet_rows
from magicbert.ranking.tables import tables


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return study_result(study_rows(3))


def finding(result: dict[str, Any], topic: str) -> dict[str, str]:
    found = [entry for entry in result["findings"] if topic in entry["topic"]]
    assert len(found) == 1, [entry["topic"] for entry in result["findings"]]
    return found[0]


def summary(result: dict[str, Any], method: str, settings: str = "default") -> dict[str, Any]:
    return next(m for m in result["methods"] if (m["method"], m["settings"]) == (method, settings))


def test_every_row_has_scipys_statistics(whole):
    losses: dict[str, list[float]] = {}
    for row in alone_rows():
        losses.setdefault(row["architecture"], []).append(row["loss"])
    row, supernet = whole["rows"][0], supernet_row("spos", 0, METHODS["spos"])
    assert (row["method"], row["seed"], row["settings"]) == ("spos", 0, "default")
    truth = [float(np.mean(losses[name])) for name in supernet["scores"]]
    scores = list(supernet["scores"].values())
    assert row["tau"] == pytest.approx(stats.kendalltau(scores, truth).statistic)
    assert row["spearman"] == pytest.approx(stats.spearmanr(scores, truth).statistic)
    assert row["tau_low"] < row["tau"] < row["tau_high"]
    assert row["regret_1"] == pytest.approx(truth[int(np.argmin(scores))] - min(truth))
    assert row["num_architectures"] == 64
    assert {"loss", "steps", "flops", "p_value", "tau_same_operators"} <= set(row)


def test_the_result_is_json_without_holes_and_the_same_each_time(whole):
    json.dumps(whole, allow_nan=False)
    assert whole["missing"] == []
    rows = [*alone_rows(), supernet_row("spos", 0, 1.0), supernet_row("magic-t", 0, 1.0)]
    assert study_result(rows) == study_result(rows)


def test_better_scores_give_a_better_tau_that_the_ceiling_bounds(whole):
    taus = [summary(whole, name)["tau"]["mean"] for name in ("spos", "magic-a", "magic-at")]
    assert taus == sorted(taus)
    perfect = study_result([*alone_rows(), supernet_row("spos", 0, 0.0)])
    reached = perfect["rows"][0]["tau"]
    assert perfect["ceiling"]["attainable_low"] <= reached <= perfect["ceiling"]["attainable_high"]


def test_paired_differences_are_over_common_seeds(whole):
    gain = next(
        g for g in whole["differences"] if (g["method"], g["settings"]) == ("magic-t", "k=2")
    )
    assert gain["seeds"] == [0, 1]
    assert gain["p_holm"] is None
    spos = {r["seed"]: r["tau"] for r in whole["rows"] if r["method"] == "spos"}
    mine = {r["seed"]: r["tau"] for r in whole["rows"] if r["settings"] == "k=2"}
    wanted = stats.ttest_rel([mine[s] for s in range(2)], [spos[s] for s in range(2)])
    assert gain["p_value"] == pytest.approx(wanted.pvalue)
    assert gain["points"] == pytest.approx([mine[s] - spos[s] for s in range(2)])


def test_equal_flops_takes_the_pair_that_costs_the_same(whole):
    pairs = {g["method"]: (g["settings"], g["baseline_settings"]) for g in whole["equal_flops"]}
    assert pairs["magic-t"] == ("default", "default")
    assert pairs["magic-at"] == ("equal-flops", "default")
    assert all(abs(g["flops_ratio"] - 1) < 0.03 for g in whole["equal_flops"])


def test_other_settings_are_held_against_their_methods_default():
    """Collapsed at its default settings, as good as uniform sampling at others."""
    rows = alone_rows()
    for seed in range(4):
        rows += [supernet_row("spos", seed, 0.4), supernet_row("magic-at", seed, 3.0)]
        rows += [
            supernet_row("magic-at", seed, sd, f"delay={d}") for sd, d in ((0.4, 10), (3.1, 5))
        ]
        rows.append(supernet_row("magic-at", seed, 0.1, "equal-flops"))
    result = study_result(rows)
    gains = {gain["settings"]: gain for gain in result["differences_settings"]}
    assert set(gains) == {"delay=10", "delay=5"}, "equal FLOPs are another comparison"
    taus = {(r["settings"], r["seed"]): r["tau"] for r in result["rows"] if r["method"] != "spos"}
    pairs = [(taus["delay=10", seed], taus["default", seed]) for seed in range(4)]
    wanted = stats.ttest_rel(*zip(*pairs, strict=True)).pvalue
    assert gains["delay=10"]["p_value"] == pytest.approx(wanted)
    assert gains["delay=10"]["p_holm"] == pytest.approx(2 * wanted), "the smaller of two"
    (panel,) = result["ablations"]
    assert [(p["settings"], p["value"]) for p in panel["points"]] == [
        ("default", 0), ("delay=5", 5), ("delay=10", 10),
    ]  # fmt: skip
    found = finding(result, "the default settings of MAGIC-AT are a poor choice")
    assert found["verdict"] == "holds"
    assert "With delay=10 tau differs by +" in found["text"]
    noise = [row for row in rows if row.get("settings") != "delay=10"]
    found = finding(study_result(noise), "the default settings of MAGIC-AT are a poor choice")
    assert found["verdict"] == "undecided"


def test_a_default_is_poor_only_where_chance_would_not_do():
    gain = {"method": "magic-at", "settings": "delay=5", "baseline_settings": "default",
            "mean": 0.1, "low": -0.1, "high": 0.3, "p_value": 0.02, "p_holm": 0.06}  # fmt: skip
    verdicts = [
        default_poor({"differences_settings": [{**gain, "p_holm": p}]}, "magic-at")[1]
        for p in (0.06, 0.04)
    ]
    assert verdicts == ["undecided", "holds"]


def test_the_ceiling_heeds_how_many_seeds_each_architecture_has():
    every_row = alone_rows()
    # Every second architecture has lost its second seed.
    rows = [row for number, row in enumerate(every_row) if number % 4 != 3]
    numbers = Counter(row["architecture"] for row in rows)
    assert set(numbers.values()) == {1, 2}
    found = study_result([*rows, supernet_row("spos", 0, 1.0)])["ceiling"]
    assert found["num_seeds"] == pytest.approx(harmonic_mean(numbers.values()))


def test_other_budgets_are_another_truth(whole):
    """Supernets, trivial rankings and ceiling are held against the longer training, too."""
    (other,) = whole["other_budgets"]
    long = {row["architecture"]: row["loss"] for row in alone_rows(1, 0.2, "long")[:40]}
    assert (other["budget"], other["num_architectures"], other["ceiling"]) == ("long", 40, None)
    scores = supernet_row("magic-t", 1, METHODS["magic-t"])["scores"]
    wanted = stats.kendalltau([scores[name] for name in long], list(long.values())).statistic
    row = next(r for r in other["rows"] if (r["method"], r["seed"], r["settings"]) ==
               ("magic-t", 1, "default"))  # fmt: skip
    assert row["tau"] == pytest.approx(wanted)
    assert row["tau_same_operators"] == pytest.approx(tau_of_places(long, scores))
    means = {(m["method"], m["settings"]): m["tau"]["mean"] for m in other["methods"]}
    assert len(means) == len(whole["methods"])
    gain = next(g for g in other["differences"] if g["settings"] == "k=2")
    spos, mine = (
        [r["tau"] for r in other["rows"] if (r["method"], r["settings"]) == variant][:2]
        for variant in (("spos", "default"), ("magic-t", "k=2"))
    )
    assert gain["points"] == pytest.approx([a - b for a, b in zip(mine, spos, strict=True)])
    topic = "MAGIC-T ranks better than SPOS, against budget 'long'"
    (magic_t,) = (g for g in other["differences"] if (g["method"], g["settings"]) ==
                  ("magic-t", "default"))  # fmt: skip
    assert judge(magic_t) == finding(whole, topic)["verdict"] == "undecided"
    assert f"{magic_t['mean']:+.2f}" in finding(whole, topic)["text"]
    (table,) = (t for t in tables(whole) if t.title.startswith("Against budget 'long'"))
    assert table.title.endswith("40 architectures")
    assert {cells[:2] for cells in table.rows} >= {("MAGIC-T", "k=2"), ("more parameters", "–")}


def test_whether_places_can_be_told_from_noise_is_measured(whole):
    """Places matter in the invented losses; where only the operators' numbers do, none can."""
    topic = "The losses tell the places of operators apart"
    assert finding(whole, topic)["verdict"] == "holds"
    means: dict[str, list[float]] = {}
    for row in alone_rows():
        means.setdefault(multiset(row["architecture"]), []).append(row["loss"])
    noise = np.random.default_rng(3)
    rows = [
        {**row, "loss": float(np.mean(means[multiset(row["architecture"])])
                              + 0.005 * noise.normal())}
        for row in alone_rows()
    ]  # fmt: skip
    result = study_result([*rows, supernet_row("spos", 0, 1.0)])
    found = finding(result, topic)
    assert found["verdict"] == "undecided"
    assert "may lie within the noise" in found["text"]
    assert "cannot be told from noise" in finding(result, "near-trivial")["text"]
    ceiling = result["ceiling_same_operators"]
    seeds = [{r["architecture"]: r["loss"] for r in rows if r["seed"] == s} for s in range(2)]
    assert ceiling["between_seeds"] == pytest.approx(tau_of_places(*seeds))
    (table,) = (t for t in tables(result) if t.title == "Rankings without a supernet")
    cells = next(row for row in table.rows if row[0] == "another seed of training alone")
    assert cells[3].startswith(f"{ceiling['between_seeds']:+.2f}")


def multiset(name: str) -> str:
    return "-".join(sorted(name.split("-")))


def tau_of_places(first: dict[str, float], second: dict[str, float]) -> float:
    """Returns tau by counting pairs of the same operators; there are no ties."""
    signs = [
        np.sign((first[one] - first[other]) * (second[one] - second[other]))
        for one, other in itertools.combinations(first, 2)
        if multiset(one) == multiset(other)
    ]
    return float(np.mean(signs))


def test_other_settings_of_equal_steps_are_no_longer_trainings(whole):
    assert whole["longer"] == []


def test_longer_trainings_are_held_against_shorter_and_equally_long_ones():
    """A rise that all methods share is the steps', not a method's."""
    rows = alone_rows()
    for seed in range(4):
        rows += [supernet_row(method, seed, 1.5) for method in ("spos", "magic-t", "magic-a")]
        rows.append(supernet_row("spos", seed, 1.4, "rate=2"))
        rows += [
            {**supernet_row("spos", seed, 0.2, "steps=8000"), "steps": 8000},
            {**supernet_row("magic-t", seed, 0.2, "steps=8000"), "steps": 8000},
            {**supernet_row("magic-a", seed, 1.5, "delay=9, steps=8000"), "steps": 8000},
        ]
    result = study_result(rows)
    others = [row for row in result["rows"] if row["settings"] != "rate=2"]
    taus = {(r["method"], r["steps"], r["seed"]): r["tau"] for r in others}
    gains = {gain["method"]: gain for gain in result["longer"]}
    assert set(gains) == {"spos", "magic-t", "magic-a"}
    assert gains["spos"]["points"] == pytest.approx(
        [taus["spos", 8000, seed] - taus["spos", 4000, seed] for seed in range(4)]
    )
    equal = {(g["method"], g["settings"]): g for g in result["differences"]}
    assert ("spos", "default") not in equal
    assert equal["magic-t", "default"]["baseline_settings"] == "default"
    assert equal["spos", "steps=8000"]["baseline_settings"] == "default"
    assert equal["magic-t", "steps=8000"]["baseline_settings"] == "steps=8000"
    assert equal["magic-t", "steps=8000"]["points"] == pytest.approx(
        [taus["magic-t", 8000, seed] - taus["spos", 8000, seed] for seed in range(4)]
    )
    assert equal["magic-a", "delay=9, steps=8000"]["baseline_settings"] == "steps=8000"
    assert [g["settings"] for g in result["differences_settings"]] == ["rate=2"]
    assert finding(result, "SPOS ranks better after 8,000 steps than after")["verdict"] == "holds"
    assert finding(result, "MAGIC-A ranks better than SPOS, 8,000 steps")["verdict"] == (
        "does not hold"
    )
    (magic_a,) = (g for g in result["longer"] if g["method"] == "magic-a")
    verdict = finding(result, "MAGIC-A was trained too briefly")["verdict"]
    assert verdict == judge(magic_a) == "undecided"
    assert "differs by" in finding(result, "MAGIC-T was trained too briefly")["text"]
    assert finding(result, "MAGIC-T was trained too briefly")["verdict"] == "holds"
    (panel,) = (panel for panel in result["ablations"] if panel["name"] == "steps")
    assert [(p["method"], p["value"]) for p in panel["points"]] == [
        ("magic-t", 4000), ("magic-t", 8000), ("spos", 4000), ("spos", 8000),
    ]  # fmt: skip


def test_an_error_that_supernets_share_is_told_from_noise_between_them():
    """Mean scores lose the noise of seeds; what all supernets get wrong stays."""
    names = list(expected_losses())
    taste = {name: 0.15 * name.count("mha2") for name in names}
    topic, verdicts = "What SPOS lacks is noise between its seeds", {}
    for kind, sd, share in (("noise", 1.0, 0.0), ("shared", 0.1, 1.0)):
        rows = alone_rows()
        for seed in range(12):
            row = supernet_row("spos", seed, sd)
            scores = {n: v + share * taste[n] for n, v in row["scores"].items()}
            rows.append({**row, "scores": scores})
        result = study_result(rows)
        verdicts[kind] = finding(result, topic)["verdict"]
    assert verdicts == {"noise": "holds", "shared": "does not hold"}
    (entry,) = result["shared_errors"]
    means = [np.mean([row["scores"][name] for row in rows[-12:]]) for name in names]
    losses = [np.mean([r["loss"] for r in rows if r.get("architecture") == n]) for n in names]
    assert entry["tau"] == pytest.approx(stats.kendalltau(means, losses).statistic)
    worths = {name: entry["worths"][name] - result["worths"][name] for name in OPERATORS}
    # 0.15 for each layer of attention, against the mean of the four operators.
    assert worths["mha2"] == pytest.approx(0.15 * 3 / 4, abs=0.01)
    assert worths["ffn"] == pytest.approx(-0.15 / 4, abs=0.01)
    (table,) = (t for t in tables(result) if t.title.startswith("Mean scores"))
    assert [cells[0] for cells in table.rows] == ["SPOS", "alone, budget 'short'"]
    assert table.rows[0][-1] == f"{entry['worths']['mha2']:+.3f}"


def test_ablations_have_the_default_settings_in_their_place(whole):
    panels = {panel["name"]: panel["points"] for panel in whole["ablations"]}
    assert [p["value"] for p in panels["k"]] == [1, 2, 6]
    assert [p["value"] for p in panels["p"]] == [0, 10, 50]
    assert {p["method"] for p in panels["p"]} == {"magic-a"}


def test_tau_against_downstream_scores(whole):
    (task,) = whole["downstream"]
    assert (task["task"], task["metric"], task["num_architectures"]) == ("SST-2", "accuracy", 30)
    scores = {row["architecture"]: row["score"] for row in downstream_rows()}
    supernet = supernet_row("spos", 0, METHODS["spos"])["scores"]
    wanted = stats.kendalltau([supernet[n] for n in scores], [-s for s in scores.values()])
    assert whole["rows"][0]["tau_downstream"]["SST-2"] == pytest.approx(wanted.statistic)


def test_the_shown_seed_is_the_one_of_the_median_tau(whole):
    shown = whole["scatter"]["methods"]["magic-at"]
    taus = sorted(r["tau"] for r in whole["rows"]
                  if (r["method"], r["settings"]) == ("magic-at", "default"))  # fmt: skip
    assert shown["tau"] == taus[1]
    assert len(shown["scores"]) == len(whole["scatter"]["losses"]) == 64


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.3, "better"),
        (-0.3, -0.01, "worse"),
        (-0.04, 0.05, "no difference"),
        (-0.2, 0.1, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_verdicts_follow_the_interval(low, high, verdict):
    assert judge({"low": low, "high": high}) == verdict


def test_verdicts_turn_round_with_the_rows():
    """The same words for whichever method is better: nothing is hoped for."""
    rows = alone_rows()
    for seed in range(4):
        rows += [supernet_row("spos", seed, 0.3), supernet_row("magic-at", seed, 1.5)]
    result = study_result(rows)
    found = finding(result, "MAGIC-AT ranks better than SPOS, equal steps")
    assert found["verdict"] == "does not hold"
    assert "no room" in " ".join(entry["topic"] for entry in result["findings"])
    turned = study_result([
        {**row, "method": {"spos": "magic-at", "magic-at": "spos"}[row["method"]]}
        if row["kind"] == "supernet" else row
        for row in rows
    ])  # fmt: skip
    assert finding(turned, "MAGIC-AT ranks better than SPOS, equal steps")["verdict"] == "holds"
    assert not any(entry["topic"].startswith("Reason") for entry in turned["findings"])


@pytest.mark.parametrize(
    ("mean", "low", "high", "verdict"),
    [(0.7, 0.6, 0.8, "holds"), (0.3, 0.2, 0.4, "does not hold"), (0.3, -8.0, 8.0, "undecided")],
)
def test_whether_there_is_room_below_the_ceiling(whole, mean, low, high, verdict):
    ceiling = {**whole["ceiling"], "attainable_low": 0.6}
    spos = {**summary(whole, "spos"), "tau": {"mean": mean, "low": low, "high": high}}
    assert no_room({"ceiling": ceiling, "methods": [spos]})[1] == verdict


def test_a_difference_is_fragile_where_holm_says_so(whole):
    gain = {**whole["differences"][0], "settings": "default", "low": 0.01, "high": 0.2,
            "mean": 0.1, "p_value": 0.03, "p_holm": 0.09}  # fmt: skip
    found = finding({"findings": findings({**whole, "differences": [gain]})}, "equal steps")
    assert found["verdict"] == "holds"
    assert "not significant once all methods are counted" in found["text"]


@pytest.mark.parametrize(
    ("seeds", "verdict"), [((0, 1), "undecided"), ((0, 1, 2), "does not hold")]
)
def test_two_close_seeds_of_a_longer_training_exclude_nothing(seeds, verdict):
    longer = {"method": "magic-t", "steps": 8000, "steps_before": 4000, "mean": 0.0, "low": -0.03,
              "high": 0.02, "seeds": seeds}  # fmt: skip
    assert training_too_short({"longer": [longer]}, "magic-t")[1] == verdict
    more = {**longer, "settings": "steps=8000", "p_value": 0.5, "p_holm": None, "sd": 0.02,
            "seeds_needed": 2, "seeds_needed_at_most": 3}  # fmt: skip
    ((_, found, _),) = longer_findings([more], [])
    assert found == ("undecided" if len(seeds) == 2 else "no difference")


@pytest.mark.parametrize(
    ("seeds", "verdict"), [((0, 1), "undecided"), ((0, 1, 2), "no difference")]
)
def test_two_seeds_that_lie_close_together_exclude_nothing(whole, seeds, verdict):
    gain = {**whole["differences"][0], "settings": "default", "low": -0.03, "high": 0.02,
            "mean": 0.0, "seeds": seeds}  # fmt: skip
    found = finding({"findings": findings({**whole, "differences": [gain]})}, "equal steps")
    assert found["verdict"] == verdict


def test_undecided_says_how_many_seeds_it_takes():
    rows = [*alone_rows()]
    for seed in range(3):
        rows += [supernet_row("spos", seed, 1.0), supernet_row("magic-t", seed, 1.0)]
    result = study_result(rows)
    gain = result["differences"][0]
    found = finding(result, "MAGIC-T ranks better than SPOS, equal steps")
    if found["verdict"] == "undecided":
        assert f"it takes about {gain['seeds_needed']} seeds" in found["text"]
    else:
        assert found["verdict"] == "no difference"


@pytest.mark.parametrize(
    ("rows", "gap"),
    [
        (alone_rows(1), "no second seed of training alone"),
        ([*alone_rows(), supernet_row("spos", 0, 1.0)], "one seed of SPOS only"),
        ([*alone_rows(), supernet_row("magic-t", 0, 1.0)], "no supernet of SPOS"),
        (alone_rows()[:2], "no downstream scores"),
        ([*alone_rows(1), *alone_rows()[1::2][:5]], "59 architectures lack a seed"),
    ],
)
def test_any_part_of_a_study_works_and_says_what_is_missing(rows, gap):
    result = study_result(rows)
    json.dumps(result, allow_nan=False)
    assert any(gap in sentence for sentence in result["missing"])
    assert {entry["verdict"] for entry in result["findings"]} <= set(VERDICTS)


def test_scores_of_a_part_of_the_table_are_held_against_that_part():
    row = supernet_row("spos", 0, 1.0)
    row["scores"] = dict(list(row["scores"].items())[:20])
    assert study_result([*alone_rows(), row])["rows"][0]["num_architectures"] == 20
    row["scores"] = {}
    assert study_result([*alone_rows(), row])["rows"][0].get("tau") is None


def test_what_cannot_be_a_study_is_refused(tmp_path):
    with pytest.raises(UserError, match="no architecture trained alone"):
        study_result([supernet_row("spos", 0, 1.0)])
    with pytest.raises(UserError, match="spos, default, seed 0: keep one"):
        supernet_rows([supernet_row("spos", 0, 1.0)] * 2)
    file = write_study(tmp_path / "rows.jsonl", alone_rows()[:2])
    assert read_study_rows(file) == alone_rows()[:2]
    file.write_text('{"kind": "alone"}\n[1]\n')
    with pytest.raises(UserError, match=r"line 2: has no 'kind'"):
        read_study_rows(file)
    file.write_text("{")
    with pytest.raises(UserError, match=r"line 1: is not JSON"):
        read_study_rows(file)


def test_the_truth_is_of_deviation_one():
    assert np.std(list(expected_losses().values())) == pytest.approx(1.0)
