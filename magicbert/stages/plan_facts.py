"""What a plan finds out by itself: ranks, the prepared data, the speed of an earlier start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from magicbert.config.plan_section import PlanSection
from magicbert.config.reading import read_yaml
from magicbert.config.sections import LaunchSection, RunSection
from magicbert.data.manifest import FILE_NAME, read_manifest
from magicbert.errors import UserError
from magicbert.trail import read_metrics, run_folder

RECENT_LINES = 10


@dataclass(frozen=True)
class Rows:
    """What a row is made of.

    Attributes:
        vocab_size: tokens of the tokenizer.
        length: tokens per row.
        is_packed: rows hold several documents.
    """

    vocab_size: int
    length: int
    is_packed: bool


@dataclass(frozen=True)
class Rate:
    """The speed of all ranks.

    Attributes:
        tokens_per_second: 0 = not known.
        source: where it is from.
    """

    tokens_per_second: float
    source: str


def planned_ranks(launch: LaunchSection, options: PlanSection) -> int:
    """Returns the ranks of all hosts, which need not be there.

    Raises:
        UserError: the hostfile cannot be read.
    """
    if options.num_ranks:
        return options.num_ranks
    if launch.hostfile:
        return slots_of(Path(launch.hostfile))
    return launch.num_ranks or max(torch.cuda.device_count(), 1)


def slots_of(hostfile: Path) -> int:
    """Returns the ranks of a hostfile in DeepSpeed's format, ``name slots=number``.

    Raises:
        UserError: it is not there, or a line is none of these.
    """
    if not hostfile.is_file():
        raise UserError(f"launch.hostfile: {hostfile} is not a file")
    lines = (line.partition("#")[0].split() for line in hostfile.read_text().splitlines())
    total = 0
    for words in filter(None, lines):
        kind, _, number = words[-1].partition("=")
        if len(words) != 2 or kind != "slots" or not number.isdecimal():
            raise UserError(f"{hostfile}: expected 'host slots=NUMBER', got {' '.join(words)!r}")
        total += int(number)
    if not total:
        raise UserError(f"{hostfile}: no host has a slot")
    return total


def rows_of(run: RunSection, options: PlanSection, longest: int) -> Rows:
    """Returns the sizes of a row, of the prepared data where they are not given.

    Args:
        run: whose data.
        options: may give the sizes.
        longest: tokens of a row where there is no data and no length is given; 0 = not known.

    Raises:
        UserError: there is no prepared data, and a size is not given.
    """
    prepared = run_folder(run) / "prepare"
    if (prepared / FILE_NAME).exists():
        manifest = read_manifest(prepared)
        return Rows(
            options.vocab_size or manifest.vocab_size,
            options.length or manifest.length,
            manifest.layout == "packed",
        )
    length = options.length or longest
    if not options.vocab_size or not length:
        raise UserError(
            f"{prepared}: no prepared data here; run `magicbert prepare` first, or plan without it "
            "by --plan.vocab_size NUMBER "
            + ("(and --plan.length NUMBER, else model.max_length)" if longest else "and "
               "--plan.length NUMBER")
        )  # fmt: skip
    return Rows(options.vocab_size, length, False)


def rate_of(folder: Path, options: PlanSection, num_ranks: int) -> Rate:
    """Returns the speed that is given, or that of the stage's last start per rank.

    Args:
        folder: of the stage.
        options: may give the speed.
        num_ranks: planned; the speed is taken to grow with their number.
    """
    if options.tokens_per_second:
        return Rate(options.tokens_per_second, "given")
    rows = [row for row in read_metrics(folder) if row.get("kind") == "train"]
    speeds = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    if not speeds or not (folder / "config.yaml").is_file():
        return Rate(0.0, "not known")
    measured = median(speeds[-RECENT_LINES:])
    launch = read_yaml(folder / "config.yaml").get("launch", {})
    former = launch.get("num_ranks", 0)
    if former in (0, num_ranks) or launch.get("hostfile"):
        return Rate(measured, "of this run's last start")
    scaled = measured * num_ranks / former
    return Rate(scaled, f"of this run's last start, {former} ranks, scaled to {num_ranks}")
