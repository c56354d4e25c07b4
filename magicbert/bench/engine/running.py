"""From one command to the record: starts the ranks of every size, which play what is missing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import torch

from magicbert.bench.engine.record import add_row, missing, open_record, record_file
from magicbert.config.reading import to_yaml
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import LaunchSection
from magicbert.records import write_text_atomically
from magicbert.training.starting.environment import (
    accelerator,
    join_process_group,
    num_devices,
    prepare_operators,
)
from magicbert.training.starting.launching import host_command, passing_signals_to
from magicbert.training.starting.versions import check_deepspeed_version

LOGGER = logging.getLogger("magicbert")
LAUNCH_CONFIG = "launch.yaml"


def start_ranks(config: BenchConfig) -> None:
    """Measures every setting that the record lacks, one start of ranks per number of ranks.

    Raises:
        UserError: this machine has fewer devices than ranks are asked for.
    """
    accelerator()  # settles which device DeepSpeed uses, before anything asks it
    check_deepspeed_version()
    for num_ranks in config.engine.ranks:
        num_devices(num_ranks)
    prepare_operators()
    file = record_file(config)
    write_text_atomically(file.with_name(LAUNCH_CONFIG), to_yaml(config))
    for num_ranks in config.engine.ranks:
        left = missing(open_record(file, config.engine), config.engine, num_ranks)
        if left:
            LOGGER.info("%d measurements with %d ranks", len(left), num_ranks)
            launch(file.with_name(LAUNCH_CONFIG), num_ranks)


def launch(config_file: Path, num_ranks: int) -> None:
    """Runs this verb on ranks of this host; leaves with the launcher's code if it fails."""
    command = host_command(LaunchSection(num_ranks=num_ranks), num_ranks)
    command += ["--module", "magicbert", "bench", "--config", str(config_file)]
    # DeepSpeed reports every engine it builds.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEEPSPEED_LOG_LEVEL": "error"}
    process = subprocess.Popen(command, env=environment)
    with passing_signals_to(process):
        code = process.wait()
    if code:
        sys.exit(code)


def play_as_rank(config: BenchConfig) -> None:
    """Plays the matches of this number of ranks; the first rank keeps the record."""
    # It brings DeepSpeed, which the process that only starts the ranks does without.
    from magicbert.bench.engine.playing import play

    torch.set_num_threads(1)
    ranks = join_process_group()
    file = record_file(config)
    record = open_record(file, config.engine)
    left = missing(record, config.engine, ranks.num_ranks)
    for match in left:
        row = play(match, config.engine, ranks)
        if ranks.is_first:
            add_row(file, record, row)
            whole = row["ratio_to_plain"][match.contender]["cpu"]["whole"]["median"]
            LOGGER.info(
                "%s: ZeRO %d, %d ranks, %d candidates: %.2f times the plain model's step (%.0f s)",
                match.contender, match.stage, match.ranks, match.candidates, whole, row["seconds"],
            )  # fmt: skip
