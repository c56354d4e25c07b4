"""From one command to all ranks: this process starts the deepspeed launcher and waits."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from magicbert.config.reading import to_yaml
from magicbert.config.sections import LaunchSection, TrainingSection
from magicbert.errors import UserError
from magicbert.interrupts import heard_here_alone
from magicbert.records import write_text_atomically
from magicbert.training.starting.environment import (
    accelerator,
    check_precision,
    free_port,
    is_launched,
    num_devices,
    prepare_operators,
    single_rank,
)
from magicbert.training.starting.versions import check_deepspeed_version
from magicbert.training.watching.guarding import guarded
from magicbert.training.watching.supervision import Supervisor, clear_heartbeats
from magicbert.training.watching.watchdog import phase_limits

LOGGER = logging.getLogger("magicbert")
LAUNCH_CONFIG = "launch.yaml"


def run_on_ranks(
    verb: str,
    config: Any,
    folder: Path,
    check: Callable[[int], None],
    train: Callable[[], None],
) -> None:
    """Runs ``train`` on every rank, starting the ranks where no launcher has.

    Args:
        verb: ``pretrain`` or ``retrain``.
        config: its resolved configuration, with sections ``launch`` and ``training``.
        folder: the stage's folder; the configuration for the ranks is written there.
        check: given the number of ranks, raises `UserError` for whatever keeps training from
            starting.
        train: trains; called in a process that is a rank.
    """
    launch, training = config.launch, config.training
    if is_launched():
        run_as_rank(config, folder, check, train)
        return
    check_machine(training)
    if launch.hostfile:
        check(1)
        start_launcher(verb, config, folder, hostfile_command(launch), launch.num_ranks)
        return
    num_ranks = num_devices(launch.num_ranks)
    check(num_ranks)
    prepare_operators()
    if num_ranks > 1:
        start_launcher(verb, config, folder, host_command(launch, num_ranks), num_ranks)
        return
    set_threads(launch, 1)
    with single_rank(), guarded(folder, 0, 1, launch):
        train()


def check_machine(training: TrainingSection) -> None:
    """Raises `UserError` if this machine cannot train as configured."""
    check_deepspeed_version()
    check_precision(training.precision)


def run_as_rank(
    config: Any, folder: Path, check: Callable[[int], None], train: Callable[[], None]
) -> None:
    """Checks and trains in one of several ranks; a user's mistake is printed by the first."""
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        LOGGER.setLevel(logging.WARNING)
    with guarded(folder, rank, num_ranks, config.launch):
        check_machine(config.training)
        check(num_ranks)
        prepare_operators()
        set_threads(config.launch, ranks_on_this_host(num_ranks))
        train()


def ranks_on_this_host(num_ranks: int) -> int:
    """Returns what the launcher says of it: deepspeed by one variable, torchrun by another."""
    told = os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE")
    return int(told or num_ranks)


def set_threads(launch: LaunchSection, ranks_on_host: int) -> None:
    """Shares this host's cores among its ranks."""
    torch.set_num_threads(threads_per_rank(launch, ranks_on_host))


def threads_per_rank(launch: LaunchSection, ranks_on_host: int) -> int:
    """Returns the CPU threads of one rank: as configured, else ``OMP_NUM_THREADS``, else its share.

    More threads than free cores are far slower than one, since those that wait spin.
    """
    wished = os.environ.get("OMP_NUM_THREADS", "")
    if launch.threads_per_rank or (wished.isdecimal() and int(wished)):
        return launch.threads_per_rank or int(wished)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // ranks_on_host)


def host_command(launch: LaunchSection, num_ranks: int) -> list[str]:
    """Returns the start of the command for ranks on this host.

    It is what ``deepspeed`` itself runs on each host; called directly, it passes signals on.

    Raises:
        UserError: the port is taken.
    """
    from deepspeed.launcher.runner import encode_world_info

    world = encode_world_info({"localhost": list(range(num_ranks))})
    check_port(launch.master_port)
    port = launch.master_port or free_port()
    return [
        *(sys.executable, "-m", "deepspeed.launcher.launch"),
        *(f"--world_info={world}", "--master_addr=127.0.0.1", f"--master_port={port}"),
        "--log_level=critical",
    ]


def check_port(port: int) -> None:
    """Raises `UserError` if another process listens on a port; 0 is any free one."""
    with socket.socket() as probe:
        # As the ranks' own store does: a connection that lingers keeps nobody out.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"launch.master_port: {port} cannot be used on this host: {error.strerror}; "
                "give another one, or 0 for one that is free"
            ) from error


def hostfile_command(launch: LaunchSection) -> list[str]:
    """Returns the start of the command for the hosts of a hostfile.

    Raises:
        UserError: the file is not there.
    """
    if not Path(launch.hostfile).is_file():
        raise UserError(f"launch.hostfile: {launch.hostfile} is not a file")
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", launch.hostfile]
    if launch.num_ranks:
        command += ["--num_gpus", str(launch.num_ranks)]
    if launch.master_port:
        command += ["--master_port", str(launch.master_port)]
    return command


def start_launcher(
    verb: str, config: Any, folder: Path, command: list[str], ranks_on_host: int
) -> None:
    """Starts the launcher on the resolved configuration and leaves with its exit code."""
    file = folder / LAUNCH_CONFIG
    write_text_atomically(file, to_yaml(config))
    command = [*command, "--module", "magicbert", verb, "--config", str(file)]
    accelerator()  # settles DS_ACCELERATOR, which the ranks inherit
    threads = threads_per_rank(config.launch, max(ranks_on_host, 1))
    clear_heartbeats(folder)
    # The runner of several hosts ends the far ranks at a SIGINT of its own.
    with nullcontext() if config.launch.hostfile else heard_here_alone():
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        supervisor = Supervisor(process, folder, ranks_on_host, phase_limits(config.launch))
        supervisor.listen()
    code = supervisor.wait()
    if code:
        sys.exit(code)


@contextmanager
def passing_signals_to(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Passes SIGTERM and SIGINT on while the block waits; gives the list of those that came."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not received:
            process.send_signal(signal.SIGTERM)
        received.append(number)

    former = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
