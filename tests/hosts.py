"""Two hosts on one machine: network namespaces with addresses of their own, joined by one wire."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM_TIMEOUT = 20
# Both ends have one name, as the interfaces of a cluster do; each stands in a namespace of its own.
WIRE = "wire"


@dataclass(frozen=True)
class Host:
    """One end of the wire.

    Attributes:
        namespace: name of its network namespace; it sees its own loopback and the wire, no more.
        address: where the other host finds it.
    """

    namespace: str
    address: str

    def command(self, words: Sequence[str]) -> list[str]:
        """Returns a command that runs on this host."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def environment(self) -> dict[str, str]:
        """Returns what a rank on this host needs to know of its network."""
        return {"GLOO_SOCKET_IFNAME": WIRE}

    def set_link(self, state: str) -> None:
        """Plugs the wire in or out: ``up`` or ``down``."""
        ip("-n", self.namespace, "link", "set", WIRE, state)

    def bytes_sent(self) -> int:
        """Returns what went over the wire from here."""
        (link,) = json.loads(ip("-n", self.namespace, "-s", "-j", "link", "show", "dev", WIRE))
        return int(link["stats64"]["tx"]["bytes"])


def run(*words: str) -> str:
    """Runs a program of the system; returns what it prints."""
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT, check=False
    )
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def ip(*words: str) -> str:
    """Runs ``ip``."""
    return run("ip", *words)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Gives two hosts that see each other and nothing else; they are gone at the end.

    Raises:
        OSError: this machine does not let us make them.
    """
    with namespaces() as (first, second):
        peer = ("peer", "name", WIRE, "netns", second.namespace)
        ip("-n", first.namespace, "link", "add", WIRE, "type", "veth", *peer)
        set_up(first)
        set_up(second)
        yield first, second


@contextmanager
def distant_hosts(delay: float, loss: float) -> Iterator[tuple[Host, Host, list[int]]]:
    """Gives two hosts whose wire is late and loses packets.

    Args:
        delay: seconds, each way.
        loss: share of the packets.

    Yields the hosts and a list that holds the number of lost packets in the end.
    """
    lost: list[int] = []
    with namespaces() as (first, second):
        words = (first.namespace, second.namespace, WIRE, str(delay), str(loss))
        script = Path(__file__).with_name("bad_wire.py")
        wire = subprocess.Popen(
            [sys.executable, str(script), *words], stdout=subprocess.PIPE, text=True
        )
        try:
            assert wire.stdout is not None
            if wire.stdout.readline() != "ready\n":
                raise OSError("no TUN devices")
            set_up(first)
            set_up(second)
            yield first, second, lost
        finally:
            wire.terminate()
            output, _ = wire.communicate(timeout=PROGRAM_TIMEOUT)
            lost += [int(number) for number in output.split()]


@contextmanager
def namespaces() -> Iterator[tuple[Host, Host]]:
    """Gives two hosts without a wire; whatever runs on them ends with them."""
    token = uuid.uuid4().hex[:8]
    first = Host(f"magicbert-{token}-a", "10.213.77.1")
    second = Host(f"magicbert-{token}-b", "10.213.77.2")
    try:
        for host in (first, second):
            ip("netns", "add", host.namespace)
        yield first, second
    finally:
        remove(first)
        remove(second)


def set_up(host: Host) -> None:
    """Gives a host its addresses."""
    ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", WIRE)
    ip("-n", host.namespace, "link", "set", "lo", "up")
    host.set_link("up")


def remove(host: Host) -> None:
    """Ends what still runs on a host, by the ids found there, and takes the host away."""
    try:
        for number in ip("netns", "pids", host.namespace).split():
            kill(int(number))
        ip("netns", "del", host.namespace)
    except OSError:
        # It was never made.
        return


def kill(number: int) -> None:
    """Kills a process that may be gone already."""
    try:
        os.kill(number, 9)
    except ProcessLookupError:
        return


def why_no_hosts() -> str | None:
    """Returns why two hosts cannot be made here; ``None`` = they can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    try:
        with two_hosts():
            return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no network namespaces: {error}"
