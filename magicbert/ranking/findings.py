"""What holds, what does not, and how sure that is: sentences that follow from intervals by rules.

Nothing here knows what the study was expected to show. A verdict is one of `VERDICTS`; the rule for
a difference is `magicbert.ranking.seeds.judge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from magicbert.ranking.reasons import reasons, summary_of
from magicbert.ranking.seeds import FEWEST_SEEDS, TARGET_HALF_WIDTH, judge, judge_seeds
from magicbert.ranking.study_rows import BASELINE, DEFAULT
from magicbert.ranking.words import about, contender, interval, named, signed

VERDICTS = ("holds", "does not hold", "no difference", "undecided", "not measured", "fact")
OF_CLAIMS = {"better": "holds", "worse": "does not hold"}
SIGNIFICANCE = 0.05
NEAR_TRIVIAL_SHARE = 0.8
Finding = tuple[str, str, str]
Result = Mapping[str, Any]


def findings(result: Result) -> list[dict[str, str]]:
    """Returns one finding per question, each with topic, verdict and text.

    Args:
        result: of `magicbert.ranking.study_result.study_result`, but for its findings.
    """
    found = [
        *truth_findings(result),
        *baseline_findings(result),
        *comparison_findings(at_default(result["differences"]), "equal steps"),
        *comparison_findings(result["equal_flops"], "equal training FLOPs"),
        *longer_findings(result["longer"], result["differences"]),
        *budget_findings(result),
        *downstream_findings(result),
        *reasons(result),
    ]
    return [{"topic": topic, "verdict": verdict, "text": text} for topic, verdict, text in found]


def claim(gain: Result) -> str:
    """Returns the verdict on the claim that a figure lies above 0."""
    return OF_CLAIMS.get(judge(gain), "undecided")


def truth_findings(result: Result) -> Iterator[Finding]:
    """Yields how far the losses of training alone can be trusted."""
    ceiling = result["ceiling"]
    topic = "Noise of the stand-alone losses"
    if ceiling is None:
        yield topic, "not measured", "There is one seed of each architecture: no noise ceiling."
    else:
        text = (
            f"Two trainings of the same {ceiling['num_architectures']} architectures order them "
            f"with tau {about(ceiling, 'between_seeds')}. A perfect ranking could reach about "
            f"{about(ceiling, 'attainable')} against the mean of {ceiling['num_seeds']:.3g} seeds."
        )
        yield topic, "fact", text
    if places := result["ceiling_same_operators"]:
        yield places_finding(places)
    for other in result["budgets_agree"]:
        text = (
            f"The orders at budgets '{result['budget']}' and '{other['budget']}' agree with tau "
            f"{about(other, 'tau')} over {other['num_architectures']} architectures."
        )
        yield "Length of the stand-alone training", "fact", text


def tells_places(ceiling: Result | None) -> bool:
    """Returns whether two seeds agree on architectures of the same operators, beyond chance."""
    low = None if ceiling is None else ceiling["between_seeds_low"]
    return low is not None and low > 0


def places_finding(ceiling: Result) -> Finding:
    """Returns whether any ranking could show what the places of operators are worth."""
    text = (
        "Two trainings order architectures of the same operators in other places with tau "
        f"{about(ceiling, 'between_seeds')}. "
    )
    text += (
        f"A perfect ranking could reach about {about(ceiling, 'attainable')} there."
        if tells_places(ceiling)
        else "What places are worth may lie within the noise: no ranking could show it here."
    )
    ends = {"low": ceiling["between_seeds_low"], "high": ceiling["between_seeds_high"]}
    return "The losses tell the places of operators apart", claim(ends), text


def baseline_findings(result: Result) -> Iterator[Finding]:
    """Yields whether the order is a trivial one, and whether a supernet beats what is free."""
    yield from triviality(result["structure"], result["ceiling_same_operators"])
    baseline, baselines = summary_of(result, BASELINE), result["baselines"]
    if baseline is None or baseline["tau"] is None or not baselines:
        return
    free = max(baselines, key=lambda entry: abs(entry["tau"] or 0.0))
    yield against_free(baseline["tau"], free)
    within = baseline["tau_same_operators"]
    if within is not None:
        text = (
            "Among architectures of the same operators in other places, "
            f"{named(BASELINE)} has tau {interval(within)}."
        )
        yield f"{named(BASELINE)} ranks beyond the choice of operators", claim(within), text
    yield from noise_findings(result)


def noise_findings(result: Result) -> Iterator[Finding]:
    """Yields whether uniform sampling falls short by noise between seeds, or by a common error.

    Args:
        result: of the study, or its part about another budget.
    """
    ceiling, mean = result["ceiling"], summary_of(result, BASELINE)
    shared = summary_of({"methods": result["shared_errors"]}, BASELINE)
    if ceiling is None or mean is None or shared is None or shared["num_seeds"] < FEWEST_SEEDS:
        return
    text = (
        f"Ranked by the mean scores of its {shared['num_seeds']} supernets, tau is "
        f"{about(shared, 'tau')}; by those of one, {signed(mean['tau']['mean'])}; a perfect "
        f"ranking has {about(ceiling, 'attainable')}."
    )
    verdict = "undecided"
    if shared["tau"] >= ceiling["attainable_low"]:
        verdict = "holds"
    elif shared["tau_high"] < ceiling["attainable_low"]:
        verdict = "does not hold"
        text += " What is left is an error that the supernets share."
    yield f"What {named(BASELINE)} lacks is noise between its seeds", verdict, text


def triviality(structure: Result, places: Result | None) -> Iterator[Finding]:
    """Yields how much of the true order the numbers of the operators decide.

    Args:
        structure: of the losses.
        places: noise ceiling among equal operators; ``None`` = not known.
    """
    share, fit = structure["share_of_operators"], structure["fitted_counts"]
    if share is None:
        return
    reach = f"; their best linear fit ranks with tau {about(fit, 'tau')}" if fit else ""
    is_trivial = share >= NEAR_TRIVIAL_SHARE
    text = (
        "Which operators an architecture holds, whatever their places, decides "
        f"{100 * max(share, 0.0):.0f}% of the variance of the losses{reach}. "
    )
    if not is_trivial:
        text += "The rest is a matter of places, and of noise."
    elif places is None or tells_places(places):
        text += "Tau within equal operators is the figure to read."
    else:
        text += "The rest cannot be told from noise."
    yield "The order is near-trivial", "holds" if is_trivial else "does not hold", text


def against_free(mean: Result, free: Result) -> Finding:
    """Returns whether uniform sampling ranks better than the best count, its sign chosen for it."""
    level = abs(free["tau"] or 0.0)
    gap = {name: None if mean[name] is None else mean[name] - level for name in ("low", "high")}
    text = (
        f"{named(BASELINE)} ranks with tau {interval(mean)}; the best of parameters, FLOPs and "
        f"numbers of operators ({free['name']}) with {level:.2f}, its sign chosen on the table."
    )
    return f"{named(BASELINE)} beats what needs no training", claim(gap), text


def comparison_findings(gains: Sequence[Result], equality: str) -> Iterator[Finding]:
    """Yields, per method and settings, whether it ranks better than uniform sampling.

    Args:
        gains: paired differences to uniform sampling.
        equality: what is equal, in words.
    """
    for gain in gains:
        topic = f"{contender(gain)} ranks better than {named(BASELINE)}, {equality}"
        yield gain_finding(topic, gain)


def gain_finding(topic: str, gain: Result) -> Finding:
    """Returns whether a paired difference lies above 0, and how sure that is."""
    judged = judge_seeds(gain)
    text = f"Paired difference of tau {interval(gain)}{sureness(gain, judged)}"
    return topic, OF_CLAIMS.get(judged, judged), text


def at_default(gains: Sequence[Result]) -> list[Result]:
    """Returns the main comparison: the differences of methods at default settings."""
    return [gain for gain in gains if gain["settings"] == DEFAULT]


def longer_findings(gains: Sequence[Result], differences: Sequence[Result]) -> Iterator[Finding]:
    """Yields whether more steps make a method rank better, and how methods compare after them.

    Args:
        gains: of longer trainings over the method's default settings.
        differences: to uniform sampling of as many steps.
    """
    others = {
        (other["method"], other["settings"]): other
        for other in differences
        if other["baseline_settings"] != DEFAULT
    }
    for gain in gains:
        method, steps = named(gain["method"]), f"{gain['steps']:,.0f} steps"
        topic = f"{method} ranks better after {steps} than after {gain['steps_before']:,.0f}"
        yield gain_finding(topic, gain)
        if other := others.get((gain["method"], gain["settings"])):
            yield gain_finding(f"{method} ranks better than {named(BASELINE)}, {steps}", other)


def budget_findings(result: Result) -> Iterator[Finding]:
    """Yields the main comparison, held against other budgets of training alone."""
    for other in result["other_budgets"]:
        against = f"against budget '{other['budget']}'"
        if places := other["ceiling_same_operators"]:
            topic, verdict, text = places_finding(places)
            yield f"{topic}, budget '{other['budget']}'", verdict, text
        for topic, verdict, text in noise_findings(other):
            yield f"{topic}, {against}", verdict, text
        yield from comparison_findings(at_default(other["differences"]), against)
        for topic, verdict, text in longer_findings(other["longer"], other["differences"]):
            yield f"{topic}, {against}", verdict, text


def sureness(gain: Result, judged: str) -> str:
    """Returns what stands behind a difference: seeds, correction, what is excluded or needed."""
    count = len(gain["seeds"])
    if gain["low"] is None:
        return "; one common seed: nothing follows."
    text = f", {count} common seeds, p = {gain['p_value']:.2g}"
    if gain["p_holm"] is not None:
        text += f" ({gain['p_holm']:.2g} after Holm's correction)"
    if judged in ("better", "worse"):
        is_fragile = gain["p_holm"] is not None and gain["p_holm"] > SIGNIFICANCE
        return text + ("; not significant once all methods are counted." if is_fragile else ".")
    if judged == "no difference":
        largest = max(abs(gain["low"]), abs(gain["high"]))
        return f"{text}. A difference above {largest:.2f} in either direction is excluded."
    few, many = (max(gain[n], FEWEST_SEEDS) for n in ("seeds_needed", "seeds_needed_at_most"))
    return (
        f"{text}. For ±{TARGET_HALF_WIDTH:g} it takes about {few} seeds, {many} at the upper 80% "
        f"limit of the standard deviation {gain['sd']:.3f}."
    )


def downstream_findings(result: Result) -> Iterator[Finding]:
    """Yields how losses and supernets agree with downstream scores."""
    for task in result["downstream"]:
        alone, methods = task["alone"], task["methods"]
        ranks = ", ".join(f"{named(m['method'])} {signed(m['tau']['mean'])}" for m in methods)
        text = (
            f"Tau of the loss against {task['metric'] or 'the score'} over "
            f"{task['num_architectures']} architectures is {about(alone, 'tau')}, that of "
            f"parameters {signed(task['parameters']['tau'])}"
        )
        text += f"; of supernets: {ranks}." if ranks else "."
        verdict = claim({"low": alone["tau_low"], "high": alone["tau_high"]})
        yield f"The stand-alone loss foretells {task['task']}", verdict, text
