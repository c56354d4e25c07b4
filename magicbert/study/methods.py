"""From a studied method's short description to the sections that training reads."""

from __future__ import annotations

from dataclasses import replace

from magicbert.config.sections import (
    AlignmentSection,
    OptimizerSection,
    RankingSection,
    SamplingSection,
    StudiedSupernetSection,
)
from magicbert.space import SearchSpace
from magicbert.supernet.anchor import num_references
from magicbert.training.small_training import FORWARDS_PER_STEP

GRADUAL = ("magic-t", "magic-at")
ALIGNED = ("magic-a", "magic-at")
# The anchor and the path that was just trained.
COMPARED_PATHS = 2


def sampling_of(entry: StudiedSupernetSection) -> SamplingSection:
    """Returns which path is trained when."""
    if entry.method in GRADUAL:
        return SamplingSection(method="magic-t", num_changes=entry.num_changes)
    return SamplingSection(method="strict-fair" if entry.method == "strict-fair" else "uniform")


def alignment_of(entry: StudiedSupernetSection) -> AlignmentSection:
    """Returns MAGIC-A's settings; not enabled for a method without it."""
    return AlignmentSection(
        enabled=entry.method in ALIGNED,
        weight=entry.weight,
        num_blocks=entry.num_blocks,
        delay_steps=entry.alignment_delay,
        anchor=entry.anchor,
        every=entry.anchor_every,
        num_dev_batches=entry.anchor_batches,
        top_percent=entry.top_percent,
        tolerance=entry.tolerance,
        pool_size=entry.pool_size,
    )


def optimizer_of(entry: StudiedSupernetSection, usual: OptimizerSection) -> OptimizerSection:
    """Returns the update rule with the rate and warm-up that a supernet may have of its own."""
    return replace(
        usual,
        learning_rate=entry.learning_rate or usual.learning_rate,
        warmup_steps=entry.warmup_steps or usual.warmup_steps,
    )


def completed(entry: StudiedSupernetSection, setting: RankingSection) -> StudiedSupernetSection:
    """Returns a supernet's settings with what it leaves to all supernets of the study."""
    return replace(
        entry,
        learning_rate=entry.learning_rate or setting.supernet_learning_rate,
        warmup_steps=entry.warmup_steps or setting.supernet_warmup_steps,
    )


def options_of(entry: StudiedSupernetSection) -> str:
    """Returns the options that its method heeds, such as ``k1-w0.5-b4-best-every100-dev5``."""
    parts = [f"lr{entry.learning_rate:g}"] if entry.learning_rate else []
    parts += [f"warm{entry.warmup_steps}"] if entry.warmup_steps else []
    if entry.method in GRADUAL:
        parts.append(f"k{entry.num_changes}")
    if entry.method in ALIGNED:
        parts += [f"w{entry.weight:g}", f"b{entry.num_blocks}", entry.anchor]
        parts += [f"every{entry.anchor_every}", f"dev{entry.anchor_batches}"]
        parts += [f"delay{entry.alignment_delay}"] if entry.alignment_delay else []
        if entry.anchor == "top-percent":
            parts += [f"p{entry.top_percent:g}", f"r{entry.tolerance:g}", f"pool{entry.pool_size}"]
    return "-".join(parts) or "plain"


def supernet_steps(
    entry: StudiedSupernetSection, setting: RankingSection, space: SearchSpace
) -> int:
    """Returns the optimizer steps of a supernet; at equal FLOPs alignment leaves fewer of them."""
    num_steps = entry.num_steps or setting.supernet_steps
    if not entry.equal_flops or num_steps <= entry.alignment_delay:
        return num_steps
    own, added = step_forwards(entry, setting, space)
    aligned = (num_steps - entry.alignment_delay) * own / (own + added)
    return max(int(entry.alignment_delay + aligned), 1)


def supernet_forwards(
    entry: StudiedSupernetSection, num_steps: int, setting: RankingSection, space: SearchSpace
) -> float:
    """Returns what so many steps cost, in forwards of one row along a mean path."""
    own, added = step_forwards(entry, setting, space)
    return num_steps * own + max(num_steps - entry.alignment_delay, 0) * added


def step_forwards(
    entry: StudiedSupernetSection, setting: RankingSection, space: SearchSpace
) -> tuple[float, float]:
    """Returns what a step costs, in forwards of one row along a mean path.

    Returns:
        Those of the step itself, and those that alignment adds: its references, and the anchor's
        comparison spread over its steps.
    """
    own = float(FORWARDS_PER_STEP * setting.rows_per_step)
    alignment = alignment_of(entry)
    if not alignment.enabled:
        return own, 0.0
    references = num_references(alignment, space) * setting.rows_per_step
    is_best = alignment.anchor == "best"
    compared = COMPARED_PATHS if is_best else 1 + min(alignment.pool_size, space.count())
    dev_rows = alignment.num_dev_batches * setting.rows_per_micro_batch
    return own, references + compared * dev_rows / alignment.every
