"""What was aimed at, beside what the records say; a goal that was missed stands there as missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from magicbert.bench.registry import OWN
from magicbert.bench.search.sizes import BLOCK, EVOLUTION, IDEAL, ONE_BY_ONE, UNIFORM
from magicbert.bench.suite_table import si
from magicbert.markdown import markdown_table

GPU = "h200"
LARGE_BATCH = {"tokens": 65536}
HEAD = ("what", "on", "goal", "measured", "reached")
BEST_PEER = "the best peer"
# 1,050 sequences a second of BERT's mean length in MLPerf, 254 tokens.
LARGE_PACKED_RATE = 1050 * 254


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that was aimed at.

    Attributes:
        record: the file of the record, without its suffix.
        case: name of the case.
        kind: share of the floor in percent, units per second, times magicbert's time, or that as
            a share of the ideal ratio in percent.
        least: the goal.
        peer: whose time it is, for ratios; the fastest of all by default.
        variant: what must hold of the sizes.
    """

    record: str
    case: str
    kind: Literal["percent", "rate", "ratio", "ideal"]
    least: float
    peer: str = BEST_PEER
    variant: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The goal in words."""
        if self.kind == "percent":
            return f"{self.least:g}% of the floor"
        if self.kind == "rate":
            return f"{si(self.least)} tokens/s"
        if self.kind == "ideal":
            return f"{self.least:g}% of the ideal ratio"
        return f"{self.least:g} x {self.peer}"


KERNELS, STEP = f"kernels-{GPU}", f"step-{GPU}"
SEARCH = "search-cpu"
PLAIN, PACKED = "step of a plain BERT", "step of a plain BERT, mixed lengths"
PAIRWISE = "cosine_similarity, pair by pair"
GOALS = (
    Goal(KERNELS, "depthwise convolution, forward", "percent", 88, variant=LARGE_BATCH),
    Goal(KERNELS, "depthwise convolution, forward", "ratio", 1.4, variant=LARGE_BATCH),
    Goal(
        KERNELS, "depthwise convolution, forward and backward", "percent", 82, variant=LARGE_BATCH
    ),
    Goal(
        KERNELS, "depthwise convolution, forward and backward", "ratio", 1.4, variant=LARGE_BATCH
    ),
    Goal(KERNELS, "dropout, residual and norm, forward", "percent", 92, variant=LARGE_BATCH),
    Goal(KERNELS, "dropout, residual and norm, forward", "ratio", 1.1, variant=LARGE_BATCH),
    Goal(KERNELS, "dropout, residual and norm, backward", "percent", 85, variant=LARGE_BATCH),
    Goal(KERNELS, "dropout, residual and norm, backward", "ratio", 1.3, variant=LARGE_BATCH),
    Goal(KERNELS, "alignment loss, forward and backward", "percent", 90, variant=LARGE_BATCH),
    Goal(
        KERNELS, "alignment loss, forward and backward", "ratio", 1.6, "torch.compile", LARGE_BATCH
    ),
    Goal(STEP, PLAIN, "rate", 0.88e6, variant={"model": "base", "length": 128}),
    Goal(
        STEP, PLAIN, "ratio", 1.8, "transformers, compiled", {"model": "base", "length": 128}
    ),
    Goal(STEP, PACKED, "rate", LARGE_PACKED_RATE, variant={"model": "large"}),
    Goal("step-cpu", PLAIN, "ratio", 3.5, "transformers"),
    Goal("step-cpu", PLAIN, "ratio", 2.9, "transformers, compiled"),
    Goal("interference-cpu", "cosines of gradients", "ratio", 40, PAIRWISE),
    # A probe every 128 steps then costs less than 2% of training.
    Goal("interference-cpu", "probe of interference", "ratio", 1 / (0.02 * 128), "training step"),
    Goal("data-cpu", "masking", "ratio", 100, "transformers collator, from lists"),
    Goal(SEARCH, BLOCK, "ratio", 4.28, ONE_BY_ONE),
    Goal(SEARCH, UNIFORM, "ratio", 1.85, ONE_BY_ONE, {"layers": 12, "head": "small"}),
    Goal(SEARCH, UNIFORM, "ratio", 1.25, ONE_BY_ONE, {"layers": 24}),
    *(Goal(SEARCH, case, "ideal", 95, ONE_BY_ONE) for case in (BLOCK, UNIFORM, EVOLUTION)),
)  # fmt: skip


def goals_markdown(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table of all goals.

    Args:
        records: by file name without its suffix.
    """
    rows = [goal_row(goal, records.get(goal.record)) for goal in GOALS]
    return markdown_table(HEAD, rows)


def goal_row(goal: Goal, record: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Returns one line; of several sizes the worst counts."""
    device = goal.record.rpartition("-")[2].upper()
    figures = list(figures_of(goal, record)) if record is not None else []
    if not figures:
        return goal.case, device, goal.text, "not measured", ""
    worst = min(figures)
    measured = f"{si(worst)} tokens/s" if goal.kind == "rate" else f"{worst:.3g}"
    return goal.case, device, goal.text, measured, "yes" if worst >= goal.least else "no"


def figures_of(goal: Goal, record: Mapping[str, Any]) -> Iterator[float]:
    """Yields the figure of every row that the goal is about, in the last way of measuring.

    On a GPU that is graph replays, what the device itself needs.
    """
    for row in record["rows"]:
        is_meant = all(row["variant"].get(name) == value for name, value in goal.variant.items())
        modes = [name for name in row["modes"] if name != "wall"]
        if row["case"] != goal.case or not is_meant or not modes:
            continue
        if goal.kind == "ideal":
            ratio = row["modes"][modes[-1]]["peer_over_own"][goal.peer]["median"]
            yield 100 * ratio / row["facts"][IDEAL]
        else:
            yield from figure(goal, row["units"], row["modes"][modes[-1]])


def figure(goal: Goal, units: int, figures: Mapping[str, Any]) -> Iterator[float]:
    """Yields the median that a goal asks for, if it was measured."""
    if goal.kind == "percent":
        if OWN in figures["percent_of_floor"]:
            yield figures["percent_of_floor"][OWN]["median"]
    elif goal.kind == "rate":
        if OWN in figures["microseconds"]:
            yield 1e6 * units / figures["microseconds"][OWN]["median"]
    elif goal.peer == BEST_PEER:
        if ratios := [ratio["median"] for ratio in figures["peer_over_own"].values()]:
            yield min(ratios)
    elif goal.peer in figures["peer_over_own"]:
        yield figures["peer_over_own"][goal.peer]["median"]
