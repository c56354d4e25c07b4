"""The deepspeed launcher on two hosts: one command on each, or by ssh from the first."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hosts import Host, run
from ranks import ROOT, rank_environment

PORT = "29544"
OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
DAEMON_SECONDS = 10


def host_environment(host: Host) -> dict[str, str]:
    """Returns what a user's shell on a host holds: no rank yet, the launcher names those."""
    environment = rank_environment(0, 1, 0) | host.environment()
    return {name: value for name, value in environment.items() if name not in OF_A_RANK}


def start(host: Host, folder: Path, words: Sequence[str], **extra: str) -> subprocess.Popen[str]:
    """Starts a command on a host; its output can be read from the process."""
    return subprocess.Popen(
        host.command(words), env=host_environment(host) | extra, cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def write_hostfile(folder: Path, hosts: Sequence[Host]) -> Path:
    """Writes a hostfile in DeepSpeed's format, one rank per host."""
    file = folder / "hostfile"
    file.write_text("".join(f"{host.address} slots=1\n" for host in hosts))
    return file


def start_everywhere(
    hosts: Sequence[Host], folder: Path, words: Sequence[str]
) -> list[subprocess.Popen[str]]:
    """Gives the launcher's command on every host, as a user without ssh does.

    Args:
        hosts: the first of them is where the ranks meet.
        folder: the working directory, seen by all hosts.
        words: options of the launcher, script and arguments.
    """
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--no_ssh"]
    launcher += ["--hostfile", str(write_hostfile(folder, hosts))]
    launcher += ["--master_addr", hosts[0].address, "--master_port", PORT]
    return [
        start(host, folder, [*launcher, "--node_rank", str(number), *words])
        for number, host in enumerate(hosts)
    ]


# --- ssh -----------------------------------------------------------------------------------


def why_no_ssh() -> str | None:
    """Returns which program of the ssh way is missing; ``None`` = all are there."""
    programs = ("ssh", "ssh-keygen", "pdsh", "sshd")
    missing = [name for name in programs if find(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def find(program: str) -> str | None:
    """Returns the path of a program, also of one that only an administrator's path shows."""
    return shutil.which(program, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


@contextmanager
def ssh_between(hosts: Sequence[Host], folder: Path) -> Iterator[Path]:
    """Runs an sshd on every host, with keys of its own; nothing of the user's is read or kept.

    Gives the folder to put first on the path: its ``ssh`` knows keys and hosts.
    """
    folder.mkdir()
    for name in ("host_key", "user_key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    client = write_client(hosts, folder)
    Path("/run/sshd").mkdir(exist_ok=True)
    daemons = [start_daemon(host, folder) for host in hosts]
    try:
        for host in hosts:
            wait_for(host, client)
        yield client
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()


def write_client(hosts: Sequence[Host], folder: Path) -> Path:
    """Writes an ``ssh`` that uses the throwaway key and knows the hosts; returns its folder."""
    public = (folder / "host_key.pub").read_text().strip()
    known = "".join(f"{host.address} {public}\n" for host in hosts)
    (folder / "known_hosts").write_text(known)
    options = {
        "IdentityFile": folder / "user_key",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known_hosts",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "User": getpass.getuser(),
    }
    text = "".join(f"{name} {value}\n" for name, value in options.items())
    (folder / "client").write_text(text)
    programs = folder / "bin"
    programs.mkdir()
    script = f'#!/bin/sh\nexec {find("ssh")} -F {folder / "client"} "$@"\n'
    (programs / "ssh").write_text(script)
    (programs / "ssh").chmod(0o755)
    return programs


def start_daemon(host: Host, folder: Path) -> subprocess.Popen[bytes]:
    """Starts an sshd that listens on one host's address and admits the throwaway key alone."""
    options = {
        "ListenAddress": host.address,
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "user_key.pub",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
    }
    file = folder / f"sshd-{host.address}"
    file.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    command = host.command([str(find("sshd")), "-D", "-e", "-f", str(file)])
    log = (folder / f"sshd-{host.address}.log").open("wb")
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def wait_for(host: Host, client: Path) -> None:
    """Waits until a host lets the throwaway key in; raises `OSError` if it does not."""
    deadline = time.monotonic() + DAEMON_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            run(*host.command([str(client / "ssh"), host.address, "true"]))
            return
        time.sleep(0.2)
    run(*host.command([str(client / "ssh"), host.address, "true"]))


def launch_script(name: str) -> str:
    """Returns the path of one of the starters."""
    return str(ROOT / "launch" / name)
