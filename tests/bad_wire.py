"""A wire between two network namespaces that is late and loses packets: python bad_wire.py ...

It needs nothing of the kernel but TUN devices (``tc netem`` is a module that not every kernel
has): a device in each namespace, and this process carries the packets from one to the other.
Arguments: both namespaces, the devices' name, the delay in seconds, and the share that is lost.
It says ``ready``, then runs until it is told to stop, and says how many packets it lost.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import sys
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
LARGEST_PACKET = 65536


def enter(namespace: str) -> None:
    """Moves this process into a network namespace."""
    with Path("/run/netns", namespace).open() as handle:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def open_end(namespace: str, name: str) -> int:
    """Makes one end of the wire; what the kernel sends there is read from the descriptor."""
    enter(namespace)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return end


def carry(ends: tuple[int, int], delay: float, loss: float) -> None:
    """Carries packets until SIGTERM."""
    draw, lost = random.Random(0), 0
    under_way: list[tuple[float, int, int, bytes]] = []
    is_running = [True]
    signal.signal(signal.SIGTERM, lambda *_: is_running.clear())
    number = 0
    while is_running:
        pause = max(under_way[0][0] - time.monotonic(), 0.0) if under_way else 0.1
        for end in select.select(ends, [], [], min(pause, 0.1))[0]:
            packet = os.read(end, LARGEST_PACKET)
            other = ends[1] if end == ends[0] else ends[0]
            number += 1
            if draw.random() < loss:
                lost += 1
            else:
                heapq.heappush(under_way, (time.monotonic() + delay, number, other, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            *_, other, packet = heapq.heappop(under_way)
            deliver(other, packet)
    print(lost, flush=True)


def deliver(end: int, packet: bytes) -> None:
    """Hands a packet over; a device that is down, or full, loses it."""
    try:
        os.write(end, packet)
    except OSError:
        return


def main() -> None:
    first, second, name, delay, loss = sys.argv[1:]
    ends = open_end(first, name), open_end(second, name)
    print("ready", flush=True)
    carry(ends, float(delay), float(loss))


if __name__ == "__main__":
    main()
