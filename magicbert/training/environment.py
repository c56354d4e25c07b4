"""What training needs of the machine, checked or brought about before any rank starts."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import torch

from magicbert.errors import UserError
from magicbert.training.operator_build import build_comm_operator
from magicbert.training.ranks import Ranks

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


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
    """Refuses a number format that the device cannot train in.

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


def join_process_group() -> Ranks:
    """Joins the ranks that the environment describes; a standing process group is kept."""
    device = accelerator()
    prepare_operators()
    # The deprecation notices of torch's collectives are DeepSpeed's to heed, not the user's.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed

    # DeepSpeed prints, from every rank, that its operator is there.
    with redirect_stdout(StringIO()):
        deepspeed.init_distributed(device.communication_backend_name())
    return Ranks.of_process_group()


def free_port() -> int:
    """Returns a port that is free on this host now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
