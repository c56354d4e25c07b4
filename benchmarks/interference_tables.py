"""Tables of the page on interference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from interference_records import METHODS, Examined

from magicbert.markdown import markdown_table
from magicbert.ranking.correlation import spearman_rho
from magicbert.ranking.seeds import SeedMean, over_seeds, paired_difference

BASELINE = METHODS[0]
# A correlation of fewer pairs says nothing.
FEWEST_PAIRS = 4


def method_table(supernets: Sequence[Examined]) -> str:
    """Returns cosines and losses of the methods, per shared operator.

    Args:
        supernets: of one size, examined at one layer.
    """
    head = (
        "shared operator", "method", "seeds", "valid loss", "one layer differs: same type",
        "other type", "all others differ", "mean over m", "mean over m, against SPOS",
    )  # fmt: skip
    rows = []
    for operator in operators_of(supernets):
        baseline = means_by_seed(supernets, BASELINE, operator)
        for method in METHODS:
            some = [one for one in supernets if one.method == method]
            if not some:
                continue
            found = [one.at(operator) for one in some]
            difference = paired_difference(means_by_seed(some, method, operator), baseline)
            rows.append((
                operator, method, str(len(some)),
                *(over(values) for values in (
                    [one.loss for one in some], [one.same for one in found],
                    [one.other for one in found], [one.curve[-1] for one in found],
                    [one.mean for one in found],
                )),
                "–" if method == BASELINE or difference is None
                else shown(difference.difference, sign="+"),
            ))  # fmt: skip
    return markdown_table(head, rows)


def size_table(supernets: Sequence[Examined]) -> str:
    """Returns the cosines of uniform sampling by depth and number of candidates.

    Args:
        supernets: trained alike but for their size.
    """
    operators = operators_of(supernets)
    head = ["layers N", "candidates C", "operators that change a step, N(C-1)/C", "valid loss"]
    for operator in operators:
        head += [f"{operator}: one layer differs", "all others differ", "mean over m"]
    rows = []
    for one in sorted(supernets, key=lambda one: one.size):
        row = [str(one.num_layers), str(one.num_candidates), f"{one.changes:.1f}"]
        row.append(f"{one.loss:.3f}")
        for operator in operators:
            found = one.at(operator)
            row += [f"{value:.2f}" for value in (found.curve[0], found.curve[-1], found.mean)]
        rows.append(row)
    return markdown_table(head, rows)


def likeness_table(supernets: Sequence[Examined]) -> str:
    """Returns how closely the gradients of pairs follow their inputs and outputs.

    Args:
        supernets: of one size, examined at a layer with children that differ in front of it.
    """
    head = (
        "method", "pairs", "mean input cosine", "mean output cosine", "mean gradient cosine",
        "Spearman, input and gradient", "Spearman, output and gradient",
    )  # fmt: skip
    rows = []
    for method in (*METHODS, "all"):
        some = [one for one in supernets if method in (one.method, "all")]
        pairs = [row for one in some for found in one.cosines for row in triples(found.pairs)]
        if len(pairs) < FEWEST_PAIRS:
            continue
        inputs, outputs, gradients = zip(*pairs, strict=True)
        rows.append((
            method, str(len(pairs)),
            *(f"{sum(values) / len(values):.2f}" for values in (inputs, outputs, gradients)),
            rank_correlation(inputs, gradients), rank_correlation(outputs, gradients),
        ))  # fmt: skip
    return markdown_table(head, rows)


def triples(pairs: Mapping[str, tuple[float, ...]]) -> list[tuple[float, float, float]]:
    """Returns input, output and gradient cosine of every pair of children."""
    return list(zip(pairs["input"], pairs["output"], pairs["gradient"], strict=True))


def rank_correlation(ones: Sequence[float], others: Sequence[float]) -> str:
    """Returns Spearman's correlation with its bootstrap interval over pairs."""
    found = spearman_rho(ones, others)
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def operators_of(supernets: Iterable[Examined]) -> tuple[str, ...]:
    """Returns the operators that were examined in every supernet, in order."""
    names = [tuple(found.operator for found in one.cosines) for one in supernets]
    return tuple(name for name in names[0] if all(name in others for others in names))


def means_by_seed(supernets: Iterable[Examined], method: str, operator: str) -> dict[int, float]:
    """Returns the mean cosine of each seed of a method."""
    return {one.seed: one.at(operator).mean for one in supernets if one.method == method}


def over(values: Sequence[float | None]) -> str:
    """Returns the mean over seeds; a dash where a seed has no such figure."""
    known = [value for value in values if value is not None]
    return shown(over_seeds(known)) if len(known) == len(values) else "–"


def shown(mean: SeedMean, *, sign: str = "") -> str:
    """Returns a mean over seeds, with Student's 95% interval from two seeds on."""
    text = f"{mean.mean:{sign}.2f}"
    if mean.low is None or mean.high is None:
        return text
    return f"{text} [{mean.low:{sign}.2f}, {mean.high:{sign}.2f}]"
