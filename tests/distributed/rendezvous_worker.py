"""What the ranks of test_rendezvous.py run."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from magicbert.training.starting.environment import join_process_group

LISTENING = "0A"


def listens(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[str]:
    """Joins; returns the addresses on which this process takes connections."""
    ranks = join_process_group()
    assert ranks.sum([1]) == [num_ranks]
    found = addresses()
    ranks.barrier()
    return found


def addresses() -> list[str]:
    """Returns the local addresses of this process's listening sockets."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for file, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", file).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in own:
                found.append(decode(fields[1].split(":")[0], family))
    return found


def decode(text: str, family: int) -> str:
    """Reads an address as the kernel prints it: words of 32 bits in the machine's order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
