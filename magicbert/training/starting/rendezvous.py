"""Where the ranks meet: those of a single host on its loopback interface, unseen from outside.

Neither torch's store nor its collectives know who speaks to them. Left alone, the store listens on
every interface of the first host, even where all ranks meet at 127.0.0.1.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from magicbert.errors import UserError

LOOPBACK_ADDRESSES = ("127.0.0.1", "localhost", "::1")
LOOPBACK_INTERFACES = ("lo", "lo0")
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def meet_on_loopback(backend: str, timeout: timedelta) -> None:
    """Starts the process group of a single host's ranks; does nothing for several hosts.

    Args:
        backend: of the collectives.
        timeout: of meeting and of every collective.
    """
    if os.environ["MASTER_ADDR"] not in LOOPBACK_ADDRESSES or dist.is_initialized():
        return
    choose_interfaces()
    # torchrun holds the store itself.
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = open_store(int(os.environ["MASTER_PORT"]), rank, num_ranks, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=num_ranks, timeout=timeout)


def choose_interfaces() -> None:
    """Points collectives to the loopback interface, unless the user has chosen another."""
    names = {name for _, name in socket.if_nameindex()}
    found = [name for name in LOOPBACK_INTERFACES if name in names]
    for variable in INTERFACE_VARIABLES if found else ():
        os.environ.setdefault(variable, found[0])


def open_store(port: int, rank: int, num_ranks: int, timeout: timedelta) -> Any:
    """Returns the store; the first rank serves it."""
    address = LOOPBACK_ADDRESSES[0]
    if rank:
        return dist.TCPStore(address, port, num_ranks, False, timeout)  # type: ignore[attr-defined]
    # The store takes the socket over and closes it.
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, port, num_ranks, True, timeout,
        wait_for_workers=False, master_listen_fd=listening_socket(address, port).detach(),
    )  # fmt: skip


def listening_socket(address: str, port: int) -> socket.socket:
    """Returns a socket that takes connections on one address.

    Raises:
        UserError: the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"launch.master_port: the ranks cannot meet at {address}:{port}: {error.strerror}; "
            "give another port, or 0 for a free one"
        ) from error
    listener.listen()
    return listener
