"""What training needs of the machine, checked or brought about before any rank starts."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from io import StringIO
from typing import Any

import torch
from torch.distributed import distributed_c10d

from magicbert.config.sections import LaunchSection
from magicbert.errors import UserError
from magicbert.faults import fault
from magicbert.training.ranks import Ranks
from magicbert.training.starting.native_bf16 import has_native_bf16
from magicbert.training.starting.operator_build import build_comm_operator
from magicbert.training.starting.rendezvous import meet_on_loopback
from magicbert.training.starting.shared_buffers import unlink_shared_buffer
from magicbert.training.watching.heartbeat import PULSE
from magicbert.training.watching.watchdog import phase_limits

LOGGER = logging.getLogger("magicbert")
RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# The watchdog names the culprit; the collective that gives up knows only that it has waited.
COLLECTIVE_GRACE = timedelta(seconds=30)


def is_launched() -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return all(name in os.environ for name in RANK_VARIABLES)


def accelerator() -> Any:
    """Returns DeepSpeed's accelerator; without a GPU, its CPU one, without a warning."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.accelerator import get_accelerator

    return get_accelerator()


def num_devices(requested: int) -> int:
    """Returns the ranks to start on this host; 0 = one per visible device (one on a CPU).

    Raises:
        UserError: more ranks than devices.
    """
    if accelerator().device_name() == "cpu":
        return max(requested, 1)
    found = int(accelerator().device_count())
    if requested > found:
        raise UserError(f"launch.num_ranks: {requested} asked for, {found} devices are visible")
    return requested or found


def check_precision(precision: str) -> None:
    """Refuses a number format that the device cannot train in; warns of one that is slow there.

    Raises:
        UserError: says which formats can be used.
    """
    device = accelerator()
    supported = {
        "fp32": True,
        "bf16": bool(device.is_bf16_supported()),
        "fp16": device.device_name() != "cpu" and bool(device.is_fp16_supported()),
    }
    if not supported[precision]:
        usable = ", ".join(name for name, is_usable in supported.items() if is_usable)
        raise UserError(
            f"training.precision: DeepSpeed's {device.device_name()} backend does not train in "
            f"{precision}; use one of: {usable}"
        )
    if precision == "bf16" and not has_native_bf16(torch.device(device.device_name())):
        LOGGER.warning(
            "training.precision: this %s computes bf16 by way of fp32; fp32 is faster here",
            device.device_name().upper(),
        )


def prepare_operators() -> None:
    """Builds what DeepSpeed would build when a process group starts, where that is missing.

    Raises:
        UserError: compiler or headers are missing.
    """
    device = accelerator()
    if device.device_name() == "cpu":
        build_comm_operator(device)


@contextmanager
def single_rank() -> Iterator[None]:
    """Describes this process as the only rank; the environment comes back at the end."""
    values = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def join_process_group(launch: LaunchSection | None = None) -> Ranks:
    """Joins the ranks that the environment describes; a standing process group is kept.

    Args:
        launch: how long ranks may wait for each other; ``None`` = as the libraries have it.
    """
    PULSE.enter("join")
    fault("init.join")
    timeout = set_collective_timeout(launch or LaunchSection())
    device = accelerator()
    prepare_operators()
    # The deprecation notices of torch's collectives are DeepSpeed's to heed, not the user's.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed

    backend = device.communication_backend_name()
    meet_on_loopback(backend, timeout)
    # DeepSpeed prints, from every rank, that its operator is there.
    with redirect_stdout(StringIO()):
        deepspeed.init_distributed(backend, timeout=timeout)
    ranks = Ranks.of_process_group()
    ranks.barrier("join")
    unlink_shared_buffer(ranks.rank)
    PULSE.enter("start")
    return ranks


def set_collective_timeout(launch: LaunchSection) -> timedelta:
    """Sets the time after which any collective of any process group gives up.

    DeepSpeed makes groups without passing a timeout on, and torch's own default is half an hour
    for gloo: a frozen rank went unnoticed for that long. While the first rank saves, others wait
    in a collective, so this is the longest of all limits; within it, the watchdog is the one who
    knows what each phase may take.
    """
    timeout = timedelta(seconds=max(phase_limits(launch).values())) + COLLECTIVE_GRACE
    distributed_c10d.default_pg_timeout = timeout
    distributed_c10d.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]
    return timeout


def free_port() -> int:
    """Returns a port that is free on this host now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
