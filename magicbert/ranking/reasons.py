"""Why a method does not rank better than uniform sampling: what the rows can tell apart.

Asked only of methods whose paired difference of tau is not above 0. Each reason is a claim that the
rows support, contradict, or cannot judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from magicbert.ranking.seeds import judge_seeds
from magicbert.ranking.study_rows import BASELINE, DEFAULT
from magicbert.ranking.words import about, interval, named

STILL_FALLING = 0.02
SIGNIFICANT = 0.05
Reason = tuple[str, str, str]
Result = Mapping[str, Any]


def reasons(result: Result) -> Iterator[Reason]:
    """Yields reasons for the methods that do not rank better than uniform sampling."""
    behind = [
        gain["method"]
        for gain in result["differences"]
        if gain["settings"] == DEFAULT and (gain["low"] is None or gain["low"] <= 0)
    ]
    if behind:
        yield no_room(result)
    for method in behind:
        yield interference_unchanged(result, method)
        yield training_too_short(result, method)
        yield weights_worse(result, method)
        yield settings_wrong(result, method)
        yield default_poor(result, method)


def no_room(result: Result) -> Reason:
    """Returns whether uniform sampling reaches the noise ceiling already."""
    topic = "Reason: no room below the noise ceiling"
    summary, ceiling = summary_of(result, BASELINE), result["ceiling"]
    mean = None if summary is None else summary["tau"]
    if ceiling is None or mean is None or mean["high"] is None:
        return topic, "not measured", "Needs two seeds alone and two of uniform sampling."
    text = (
        f"{named(BASELINE)} has tau {interval(mean)}, a perfect ranking about "
        f"{about(ceiling, 'attainable')}."
    )
    level = ceiling["attainable_low"]
    if mean["high"] < level:
        return topic, "does not hold", text
    return topic, "holds" if mean["mean"] >= level else "undecided", text


def interference_unchanged(result: Result, method: str) -> Reason:
    """Returns whether a method fails to lower interference, or even raises it."""
    gain = gain_of(result["differences_interference"], method)
    topic = f"Reason: {named(method)} does not lower interference here"
    if gain is None or gain["low"] is None:
        return topic, "not measured", "No cosines of gradients from two common seeds."
    text = (
        f"The mean cosine of gradients differs from {named(BASELINE)}'s by {interval(gain, 3)} "
        "(higher is less interference)."
    )
    if gain["low"] > 0:
        text += " Paths agree more and ranks do not follow: something else limits them here."
    verdict = "does not hold" if gain["low"] > 0 else "holds" if gain["high"] < 0 else "undecided"
    return topic, verdict, text


def training_too_short(result: Result, method: str) -> Reason:
    """Returns whether a longer training ranks better; without one, whether the loss was falling."""
    topic = f"Reason: {named(method)} was trained too briefly"
    longer = next((gain for gain in result["longer"] if gain["method"] == method), None)
    if longer is not None:
        text = (
            f"After {longer['steps']:,.0f} steps instead of {longer['steps_before']:,.0f} its tau "
        )
        verdicts = {"better": "holds", "undecided": "undecided"}
        verdict = verdicts.get(judge_seeds(longer), "does not hold")
        return topic, verdict, f"{text}differs by {interval(longer)}."
    curve = next((c for c in result["curves"] if c["method"] == method), None)
    if curve is None or curve["last_quarter"] is None:
        return topic, "not measured", "No learning curve."
    fall = curve["last_quarter"]
    text = (
        f"Its valid loss fell by {fall:.3f} nats in the last quarter of the steps; below "
        f"{STILL_FALLING:g} counts as flat."
    )
    return topic, "holds" if fall > STILL_FALLING else "does not hold", text


def weights_worse(result: Result, method: str) -> Reason:
    """Returns whether the method pays for its constraint with worse shared weights."""
    topic = f"Reason: {named(method)} has worse shared weights"
    gain, summary = gain_of(result["differences_loss"], method), summary_of(result, method)
    if gain is None or gain["low"] is None or summary is None:
        return topic, "not measured", "No inherited losses from two common seeds."
    verdict = "holds" if gain["low"] > 0 else "does not hold" if gain["high"] < 0 else "undecided"
    text = f"Its inherited loss differs from {named(BASELINE)}'s by {interval(gain, 3)} nats."
    if summary["anchors"]:
        text += f" Its anchor was replaced {summary['anchors']:.0f} times in a training."
    return topic, verdict, text


def settings_wrong(result: Result, method: str) -> Reason:
    """Returns whether other settings of the method do rank better."""
    topic = f"Reason: other settings of {named(method)} would do"
    tried = [
        gain
        for gain in result["differences"]
        if gain["method"] == method and gain["settings"] != DEFAULT and gain["low"] is not None
    ]
    if not tried:
        return topic, "not measured", "No other settings with two common seeds."
    best = max(tried, key=lambda gain: gain["mean"])
    text = f"With {best['settings']} it has {interval(best)} to {named(BASELINE)}."
    if len(tried) > 1:
        text += f" It was picked among {len(tried)}, so its interval is too kind."
    return topic, "undecided" if best["low"] > 0 else "does not hold", text


def default_poor(result: Result, method: str) -> Reason:
    """Returns whether other settings of the method rank better than its default ones."""
    topic = f"Reason: the default settings of {named(method)} are a poor choice here"
    tried = [
        gain
        for gain in result["differences_settings"]
        if (gain["method"], gain["baseline_settings"]) == (method, DEFAULT)
    ]
    if not tried:
        return topic, "not measured", "No other settings with two common seeds."
    best = min(tried, key=lambda gain: (gain["mean"] <= 0, gain["p_holm"]))
    text = (
        f"With {best['settings']} tau differs by {interval(best)} from the default settings', "
        f"p = {best['p_value']:.2g}"
    )
    if len(tried) > 1:
        text += f" ({best['p_holm']:.2g} after Holm's correction for {len(tried)} settings)"
    text += "."
    is_better = best["mean"] > 0 and best["p_holm"] < SIGNIFICANT
    return topic, "holds" if is_better else "undecided", text


def gain_of(gains: Sequence[Result], method: str) -> Result | None:
    """Returns the difference of a method at default settings."""
    found = (g for g in gains if (g["method"], g["settings"]) == (method, DEFAULT))
    return next(found, None)


def summary_of(result: Result, method: str) -> Result | None:
    """Returns the means over seeds of one method at default settings."""
    found = (m for m in result["methods"] if (m["method"], m["settings"]) == (method, DEFAULT))
    return next(found, None)
