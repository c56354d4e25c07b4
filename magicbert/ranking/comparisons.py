"""Methods against each other: means over seeds, and what each gains over uniform sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from magicbert.ranking.seeds import PairedDifference, holm, over_seeds, paired_difference
from magicbert.ranking.settings import base_of, is_at_equal_flops
from magicbert.ranking.study_rows import BASELINE, DEFAULT, EQUAL_FLOPS

# What is compared: names in the rows.
MEASURES = ("tau", "spearman", "tau_same_operators", "tau_same_parameters", "top_10_overlap",
            "regret_1", "regret_10", "loss", "interference",
            "interference_one_layer")  # fmt: skip
EQUAL_WITHIN = 0.03
Row = Mapping[str, Any]
Variant = tuple[str, str]


def variants_of(rows: Sequence[Row]) -> dict[Variant, list[Row]]:
    """Returns the rows of each method and settings, in the order in which they first stand."""
    found: dict[Variant, list[Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["settings"]), []).append(row)
    return found


def by_seed(rows: Sequence[Row], measure: str) -> dict[int, float]:
    """Returns one figure by seed; rows that lack it are left out."""
    return {row["seed"]: row[measure] for row in rows if row.get(measure) is not None}


def summaries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the means over seeds of every method and settings."""
    return [summary(variant, found) for variant, found in variants_of(rows).items()]


def summary(variant: Variant, rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the means over seeds of one method and settings."""
    found: dict[str, Any] = {
        "method": variant[0],
        "settings": variant[1],
        "seeds": [row["seed"] for row in rows],
        "steps": float(np.mean([row["steps"] for row in rows])),
        "flops": float(np.mean([row["flops"] for row in rows])),
        "anchors": float(np.mean([row["anchors"] for row in rows])),
    }
    for measure in MEASURES:
        values = list(by_seed(rows, measure).values())
        found[measure] = asdict(over_seeds(values)) if values else None
    return found


def differences(rows: Sequence[Row], measure: str = "tau") -> list[dict[str, Any]]:
    """Returns what each method and settings gains over uniform sampling.

    It is held against uniform sampling of as many steps where there is one, else against that at
    default settings. Holm's correction covers the main comparison, the methods at default settings;
    ablations are looked at because of what the others showed, and their p-values stay as they are.
    """
    variants = variants_of(rows)
    found = [
        gain
        for variant in variants
        if (baseline := baseline_of(variants, variant)) is not None
        if (gain := gain_of(variants, variant, baseline, measure)) is not None
    ]
    main = [g for g in found if g["settings"] == DEFAULT and g["p_value"] is not None]
    for gain, adjusted in zip(main, holm([g["p_value"] for g in main]), strict=True):
        gain["p_holm"] = adjusted
    return found


def baseline_of(variants: Mapping[Variant, Sequence[Row]], variant: Variant) -> Variant | None:
    """Returns the uniform sampling that a variant is held against; ``None`` if there is none."""
    default, steps = (BASELINE, DEFAULT), mean_steps(variants[variant])
    if variant == default or default not in variants:
        return None
    of_as_many = [
        name
        for name, rows in variants.items()
        if name[0] == BASELINE and mean_steps(rows) == steps and name != variant
    ]
    return default if default in of_as_many or not of_as_many else of_as_many[0]


def longer_trainings(rows: Sequence[Row], measure: str = "tau") -> list[dict[str, Any]]:
    """Returns what each method gains over its own default settings by more steps.

    A delay of the alignment may have grown with the steps.
    """
    variants = variants_of(rows)
    return [
        {**gain, "steps": mean_steps(own), "steps_before": mean_steps(variants[default])}
        for variant, own in variants.items()
        if (default := (variant[0], DEFAULT)) in variants
        if mean_steps(own) > mean_steps(variants[default])
        if (gain := gain_of(variants, variant, default, measure)) is not None
    ]


def settings_differences(rows: Sequence[Row], measure: str = "tau") -> list[dict[str, Any]]:
    """Returns what each method's other settings gain at equal steps over those they start from.

    These are the default ones, or others of which they change one thing more (see `base_of`).
    Holm's correction covers the settings of one method that start from the same ones.
    """
    variants = variants_of(rows)
    families: dict[Variant, list[dict[str, Any]]] = {}
    for variant in variants:
        base = base_variant(variants, variant)
        gain = None if base is None else gain_of(variants, variant, base, measure)
        if base is not None and gain is not None and gain["p_value"] is not None:
            families.setdefault(base, []).append(gain)
    for family in families.values():
        for gain, adjusted in zip(family, holm([g["p_value"] for g in family]), strict=True):
            gain["p_holm"] = adjusted
    return [gain for family in families.values() for gain in family]


def base_variant(variants: Mapping[Variant, Sequence[Row]], variant: Variant) -> Variant | None:
    """Returns the settings of the same method and steps that a variant starts from, if any."""
    method, settings = variant
    steps = mean_steps(variants[variant])
    known = [
        other
        for (name, other), rows in variants.items()
        if name == method and mean_steps(rows) == steps
    ]
    base = base_of(settings, known)
    return None if base is None else (method, base)


def gain_of(
    variants: Mapping[Variant, Sequence[Row]], variant: Variant, baseline: Variant, measure: str
) -> dict[str, Any] | None:
    """Returns the paired difference of two variants as JSON data; ``None`` without common seeds."""
    gain = paired_difference(
        by_seed(variants[variant], measure), by_seed(variants[baseline], measure)
    )
    if gain is None:
        return None
    return {
        "method": variant[0],
        "settings": variant[1],
        "baseline": baseline[0],
        "baseline_settings": baseline[1],
        "measure": measure,
        "flops_ratio": mean_flops(variants[variant]) / mean_flops(variants[baseline]),
        "p_holm": None,
        **of_pairs(gain, variants, variant, baseline, measure),
    }


def of_pairs(
    gain: PairedDifference,
    variants: Mapping[Variant, Sequence[Row]],
    variant: Variant,
    baseline: Variant,
    measure: str,
) -> dict[str, Any]:
    """Returns the difference with its points, one per seed, for the plot."""
    first, second = (by_seed(variants[name], measure) for name in (variant, baseline))
    data = {
        "points": [first[seed] - second[seed] for seed in gain.seeds],
        "seeds": list(gain.seeds),
        "p_value": gain.p_value,
        "seeds_needed": gain.seeds_needed,
        "seeds_needed_at_most": gain.seeds_needed_at_most,
    }
    return {**asdict(gain.difference), **data}


def equal_flops(rows: Sequence[Row], measure: str = "tau") -> list[dict[str, Any]]:
    """Returns each method's gain at equal training FLOPs instead of equal steps.

    Of the settings ``default`` and ``equal-flops`` of method and baseline, the first pair counts
    whose mean FLOPs agree within 3%: a study may train the baseline longer or the method shorter.
    Other settings count where their steps were cut to equal FLOPs, as in ``delay=1000,
    equal-flops``.
    """
    variants = variants_of(rows)
    found = []
    for method in dict.fromkeys(method for method, _ in variants if method != BASELINE):
        others = [
            settings
            for name, settings in variants
            if name == method and settings != EQUAL_FLOPS and is_at_equal_flops(settings)
        ]
        for choices in ((DEFAULT, EQUAL_FLOPS), *((other,) for other in others)):
            pairs = ((mine, theirs) for mine in choices for theirs in (DEFAULT, EQUAL_FLOPS))
            gains = (gain_at_equal_flops(variants, method, *pair, measure) for pair in pairs)
            found += [gain for gain in gains if gain is not None][:1]
    return found


def gain_at_equal_flops(
    variants: Mapping[Variant, Sequence[Row]], method: str, mine: str, theirs: str, measure: str
) -> dict[str, Any] | None:
    """Returns the gain of a method's settings over uniform sampling's, if their FLOPs agree."""
    variant, baseline = (method, mine), (BASELINE, theirs)
    if variant not in variants or baseline not in variants:
        return None
    ratio = mean_flops(variants[variant]) / mean_flops(variants[baseline])
    is_equal = abs(ratio - 1) <= EQUAL_WITHIN
    return gain_of(variants, variant, baseline, measure) if is_equal else None


def mean_steps(rows: Sequence[Row]) -> float:
    """Returns the mean optimizer steps of some rows."""
    return float(np.mean([row["steps"] for row in rows]))


def mean_flops(rows: Sequence[Row]) -> float:
    """Returns the mean training FLOPs of some rows."""
    return float(np.mean([row["flops"] for row in rows]))
