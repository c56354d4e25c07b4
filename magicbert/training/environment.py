"""What training needs of the machine, checked or brought about before any rank starts."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from magicbert.errors import UserError
from magicbert.training.ranks import Ranks

LOGGER = logging.getLogger("magicbert")
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
    """Builds DeepSpeed's CPU communication operator where it is missing, and says so.

    DeepSpeed builds it when a process group starts; done here once, the ranks find it built.

    Raises:
        UserError: compiler or headers are missing.
    """
    if accelerator().device_name() != "cpu":
        return
    built = operator_file()
    if built.is_file():
        return
    check_build_tools()
    if (built.parent / "lock").exists():
        LOGGER.warning(
            "another process seems to build DeepSpeed's operator; if none does, delete %s",
            built.parent / "lock",
        )
    LOGGER.info("building DeepSpeed's CPU communication operator (first use only, 1-2 minutes)")
    from deepspeed.comm.torch import build_shm_op

    try:
        with redirect_stdout(StringIO()):
            build_shm_op()
    except (RuntimeError, OSError) as error:
        raise UserError(f"DeepSpeed's CPU communication operator did not build: {error}") from error


def operator_file() -> Path:
    """Returns where torch puts the built operator."""
    from torch.utils.cpp_extension import _get_build_directory

    builder = accelerator().create_op_builder("ShareMemCommBuilder")
    name = builder.name
    return Path(_get_build_directory(name, verbose=False)) / f"{name}.so"


def check_build_tools() -> None:
    """Raises `UserError` with everything that is missing to build an operator."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    missing = []
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        missing.append("a C++ compiler (Debian: apt-get install g++)")
    if shutil.which("ninja") is None:
        missing.append("ninja on the PATH (pip install ninja, and activate the environment)")
    if not header.is_file():
        missing.append(f"Python's headers, {header} (Debian: apt-get install python3-dev)")
    if missing:
        listing = "\n".join(f"  - {item}" for item in missing)
        raise UserError(
            f"DeepSpeed builds an operator at its first use on a CPU; missing:\n{listing}"
        )


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
